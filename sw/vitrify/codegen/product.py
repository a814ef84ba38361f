"""What a lowering says of one MATMUL; the builder makes the instruction of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vitrify.arch.access import Taps
from vitrify.arch.isa import Stationary
from vitrify.arch.modes import Combine

from .pack import Bytes
from .placement import Placed


@dataclass(frozen=True)
class At:
    """A place in a tensor: a row, and a physical channel at which a word begins."""

    tensor: Placed
    row: int = 0
    channel: int = 0

    @property
    def address(self) -> int:
        """Of the word there."""
        return self.tensor.at(self.row, self.channel)

    @property
    def number(self) -> int:
        """Of the row, among those of all images of the job."""
        return self.tensor.first + self.row


@dataclass(frozen=True)
class Tiles:
    """Activations that stand still, from ``at`` on: rows or columns of the stationary matrix."""

    kind: Stationary
    at: At


@dataclass(frozen=True)
class Stored:
    """Weights in the token memory: pair address of their tiles, and the LOAD that brings them.

    They are those of some c ``tiles`` of the layer; ``None``: of all.
    """

    address: int
    load: int
    tiles: range | None = None


#: Numbers of rows that are read one after another.
Picks = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Queue:
    """The rows that the router gave to an expert, from entry ``first`` on.

    Rows are read and written in the order of the queue, unless it ``gathers`` those that are read,
    or ``scatters`` the results to their rows, scaled by the gate weights.  ``adds`` is the tensor
    that a row's first expert adds to.
    """

    expert: int
    first: int
    #: Expected multiply-accumulates, for reports: routing is known at run time only.
    macs: int
    gathers: bool = False
    scatters: bool = False
    adds: Placed | None = None

    def fields(self, channel: int) -> dict[str, int]:
        """Of the instruction whose results begin at this physical channel."""
        return {
            "expert_rows": 1, "expert": self.expert, "expert_first": self.first,
            **({"src_list": 1} if self.gathers else {}),
            **({"dst_list": 1, "gate": 1} if self.scatters else {}),
            **({"add_addr": self.adds.at(0, channel)} if self.adds else {}),
        }


@dataclass(frozen=True, kw_only=True)
class MatrixProduct:
    """``rows`` of a tensor stream past stationary tiles and give ``columns`` of another.

    Parameters
    ----------
    name, op, macs : for reports: layer, kind of operation, multiplications without padding
    x : first row and channel that are streamed, ``depth`` channels from there on
    out : first row and channel that are written
    columns : physical channels that are written
    fields : transform, output format, scaling and statistics, as the instruction has them
    row : for reports: the first row of the whole tensor, where ``out`` holds a block of it
    tiles : activations that stand still; without them tiles are weights
    weights : parameters and tiles from DRAM; several are one set a task
    gain, table : of the operand's normalisation, and of the activation
    picks : rows of ``x`` that are read, counted from its row; all from there on without
    taps : rows are windows of a map that begins at ``x``; ``depth`` is that of all taps
    fold : rows of ``x``, one behind the other, that are streamed as one
    k_step, c_group : words by which what is streamed moves on behind so many c tiles
    largest : what ADD16 and ADD8 keep is the larger of result and old value
    adds : old values that the result is combined with, where they are not its own
    divisor : rows whose sums, gathered when they were written, divide those of the result
    queue : the MATMUL is left out if its expert has no rows
    nibbles : the weights' tiles have 4 bits a weight
    stored : the weights' tiles are in the token memory, ``weights`` are parameters only
    """

    name: str
    op: str
    macs: int
    rows: int
    x: At
    depth: int
    out: At
    columns: int
    fields: Mapping[str, int] = field(default_factory=dict)
    row: int | None = None
    tiles: Tiles | None = None
    weights: Sequence[Bytes] = ()
    nibbles: bool = False
    gain: np.ndarray | None = None
    table: np.ndarray | None = None
    picks: Picks | None = None
    taps: Taps | None = None
    fold: int = 1
    k_step: int = 0
    c_group: int = 1
    largest: bool = False
    adds: At | None = None
    divisor: At | None = None
    queue: Queue | None = None
    stored: Stored | None = None

    @property
    def sums_tokens(self) -> bool:
        """Whether the dot products are sums over tokens, not over channels."""
        return self.tiles is not None and self.tiles.kind is Stationary.COLUMNS

    def pattern(self, k_tiles: int) -> dict[str, int]:
        """Fields of the PATTERN for what is streamed; none for rows one after another."""
        fields, taps = {}, self.taps
        if taps is not None:
            fields = {
                "tapped": 1, "taps_y": taps.taps_y, "taps_x": taps.taps_x,
                "tap_k": k_tiles // (taps.taps_y * taps.taps_x), "tap_stride": taps.stride,
                "map_height": taps.height, "map_width": taps.width, "out_width": taps.out_width,
                "origin_y": taps.origin_y, "origin_x": taps.origin_x,
            }
        if self.largest:
            fields["combine"] = Combine.MAX
        if self.k_step:
            fields |= {"k_step": self.k_step, "c_group": self.c_group}
        return fields
