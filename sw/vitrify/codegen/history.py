"""What has been written to a tensor so far, and by which instruction."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Write:
    """Part of a tensor that one MATMUL writes."""

    matmul: int
    row: int
    rows: int
    channel: int
    columns: int
    #: First channel of its last c tile.
    last_tile: int
    #: Rows of a queue, any of the tensor's, in an order that nobody knows.
    queued: bool


@dataclass
class History:
    """What fills a tensor, in the order of the program."""

    writes: list[Write] = field(default_factory=list)
    #: ``(number, first row, rows)`` of the LOADs that fill it.
    loads: list[tuple[int, int, int]] = field(default_factory=list)
