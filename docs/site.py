"""Hooks of mkdocs: pages that exist elsewhere in the repository or follow from the code."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from vitrify.cli.main import COMMANDS, parser

#: Width of the help texts.
os.environ["COLUMNS"] = "82"

_ROOT = Path(__file__).resolve().parent.parent
#: Packages whose public names are documented.
_PACKAGES = ("runtime", "backend", "compiler", "program", "estimate", "report", "explore")
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)]*)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    pages = {
        "index.md": (_ROOT / "README.md").read_text(),
        "REFERENCE.md": (_ROOT / "hw" / "REFERENCE.md").read_text(),
        "changelog.md": (_ROOT / "CHANGELOG.md").read_text(),
        "cli.md": _command_line(),
        "python.md": "# Python\n\n" + "\n".join(f"::: vitrify.{name}\n" for name in _PACKAGES),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, files: Files, **_: Any) -> str:
    """Links as they are on the site; what is only in the repository becomes its name."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, _, anchor = target.partition("#")
        name = path.removeprefix("../").removeprefix("docs/").removeprefix("hw/")
        if files.get_file_from_path(name) is None:
            # A document that is missing stays a link, about which the build complains.
            return found[0] if path.endswith((".md", ".png")) else text
        return f"[{text}]({name}{'#' if anchor else ''}{anchor})"

    return _LINK.sub(link, markdown)


def _command_line() -> str:
    """Every command with its options, from the parser."""
    parts = ["# Command line\n\nAlso as `vitrify COMMAND --help`.\n"]
    for command in COMMANDS:
        text = parser(command).commands[command].format_help()
        parts.append(f"## {command}\n\n```\n{text}```\n")
    return "\n".join(parts)
