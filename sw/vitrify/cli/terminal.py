"""The terminal: results on stdout, progress and remarks on stderr.

Names come from files of others.  They are shown as they are, never taken for markup, and their
control characters are escaped.  Rich is imported by whoever draws something.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vitrify.arch.text import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress
    from rich.table import Table

#: Columns where stdout is a file or a pipe: names of layers stay whole, for grep.
_FILE_WIDTH = 140


def say(text: str) -> None:
    """A line on stdout, however long."""
    print(visible(text), flush=True)


def remark(text: str) -> None:
    """A line on stderr."""
    print(visible(text), file=sys.stderr)


def print_json(data: Any) -> None:
    """JSON on stdout."""
    print(json.dumps(data, indent=2), flush=True)


def show(what: RenderableType) -> None:
    """A table on stdout."""
    _console(stderr=False).print(what)


def new_table(*headings: str, **settings: Any) -> Table:
    """A table of Rich (``settings`` are its own) whose cells are plain text."""
    from rich.table import Table

    class Plain(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*map(_plain, cells), **options)

        def add_column(self, header: Any = "", *rest: Any, **options: Any) -> None:
            super().add_column(_plain(header), *rest, **options)

    title = settings.pop("title", None)
    return Plain(*map(_plain, headings), title=_plain(title), **settings)


def _plain(cell: Any) -> Any:
    return visible(cell) if isinstance(cell, str) else cell


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr; yields what changes its text."""
    from rich.text import Text

    with _console(stderr=True).status(Text(visible(text))) as spinner:
        yield lambda phrase: spinner.update(Text(visible(phrase)))


class Bar:
    """A progress bar that is told ``(done, total)``."""

    def __init__(self, progress: Progress, text: str) -> None:
        self._progress = progress
        self._task = progress.add_task(visible(text), total=None)

    def __call__(self, done: int, total: int) -> None:
        """Show ``done`` of ``total``."""
        self._progress.update(self._task, completed=done, total=total)

    def say(self, text: str) -> None:
        """Change the text."""
        self._progress.update(self._task, description=visible(text))


@contextlib.contextmanager
def progress_bar(text: str) -> Iterator[Bar]:
    """A bar on stderr, gone when finished and absent where stderr is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = _console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield Bar(progress, text)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH
    return console
