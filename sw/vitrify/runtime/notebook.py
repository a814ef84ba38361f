"""Facts as a small HTML table, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping


def facts(title: str, values: Mapping[str, str]) -> str:
    """A table of two columns; names come from files of others and become text."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:right'>{html.escape(value)}</td></tr>"
        for name, value in values.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"
