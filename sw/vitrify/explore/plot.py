"""A study as a picture: time against the share of the part."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from vitrify.arch.boards import Board

from .study import Design, front


def draw(designs: Sequence[Design], board: Board, form: str) -> bytes:
    """All designs, those that were left out at their bounds, and the front as a line.

    Parameters
    ----------
    form : ``svg`` or ``png``
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for status, colour, label in (
        ("dominated", "#b8bec8", "left out: at least"),
        ("estimated", "#2f6fdb", "estimate"),
    ):
        some = [design for design in designs if design.status == status]
        if some:
            axes.scatter(*_places(some), s=14, color=colour, label=label, alpha=0.8, linewidths=0)
    axes.step(*_places(front(designs)), where="pre", color="#dd7a1c", label="front")
    axes.set(
        xlabel=f"largest share of any resource of {board.part.name} (%)",
        ylabel=f"ms at {board.clock_mhz:g} MHz",
        yscale="log",
    )
    # 0.5 and 20, not powers of ten
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=130)
    return picture.getvalue()


def _places(designs: Sequence[Design]) -> tuple[list[float], list[float]]:
    return [100 * design.share for design in designs], [design.milliseconds for design in designs]
