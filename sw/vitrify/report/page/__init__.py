"""Figures as one self-contained HTML page: template, style and script lie beside this file."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

_HERE = resources.files("vitrify.report.page")


def render(figures: dict[str, Any], compare: dict[str, Any] | None = None) -> str:
    """The page.

    Parameters
    ----------
    figures, compare : of :func:`vitrify.report.figures.figures`
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(_text("page.html.j2"))
    summary = figures["summary"]
    # Inside <script> nothing is escaped, and nothing may end it.
    text = json.dumps({"figures": figures, "compare": compare}, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return template.render(
        title=f"{summary['model']} on {summary['arch']}", conditions=summary["conditions"],
        form=figures["form"], figures=text, style=_text("page.css"), script=_text("page.js"),
    )


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
