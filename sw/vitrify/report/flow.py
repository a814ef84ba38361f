"""What instructions read and write: the graph of layers, and the token memory over time.

Every word of the token memory remembers who wrote it; whoever reads it then has an edge from the
writer, and the tensor is still in use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vitrify.arch import access, memmap
from vitrify.arch.access import Access
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction, Opcode, Region
from vitrify.program import Program
from vitrify.runtime.activity import Activity

Words = npt.NDArray[np.int64]
#: Writers that are no layers.
SOURCES = {Region.INPUT: "image", Region.PROGRAM: "constants"}
OUTPUTS = "outputs"
_NOBODY = -1


@dataclass
class Tensor:
    """A tensor in the token memory, from its first write to its last use."""

    name: str
    bits: int
    begin: int
    end: int
    #: First word, and the one behind the last, in every bank where it has some.
    banks: dict[int, tuple[int, int]] = field(default_factory=dict)

    def cover(self, words: Words, bank_words: int) -> None:
        """It has these words, too."""
        for bank in np.unique(words // bank_words).tolist():
            mine = words[words // bank_words == bank]
            low, high = self.banks.get(bank, (1 << 60, 0))
            self.banks[bank] = min(low, int(mine.min())), max(high, int(mine.max()) + 1)


@dataclass
class Flow:
    """Tensors in the order of their first write; edges (writer, reader) with how many reads."""

    tensors: list[Tensor]
    edges: dict[tuple[str, str], int]


def short_name(layer: str) -> str:
    """A layer's name without the number of the head or the block of rows: ``scores[2]``."""
    return re.sub(r"\[\d+\]$", "", layer)


def follow(program: Program, activity: Activity) -> Flow:
    """Follow the instructions of a job, at the cycles of an estimate with a trace."""
    return _Follower(program, activity).flow


class _Follower:
    def __init__(self, program: Program, activity: Activity) -> None:
        self._arch = program.arch
        self._writer = np.full(program.arch.token_words, _NOBODY, np.int64)
        self._holder = self._writer.copy()
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self.flow = Flow([], {})
        begins = [span.begin for span in activity.of("instructions")]
        first, last = _times(activity, len(program.layers))
        places = {layer.instruction: place for place, layer in enumerate(program.layers)}
        for number, op in enumerate(program.instructions()):
            if op.opcode is Opcode.MATMUL:
                place = places[number]
                if place in last:
                    layer = program.layers[place]
                    self._matmul(
                        op, short_name(layer.name), layer.tensor.name, layer.tensor.bits,
                        first[place], last[place],
                    )
            elif op.opcode is Opcode.LOAD:
                begin = begins[number]
                self._write(self._moved(op), SOURCES[Region(op.region)], SOURCES[Region(op.region)],
                            8 * (1 + op.wide), begin, begin)
            elif op.opcode is Opcode.STORE:
                self._read(self._moved(op), OUTPUTS, begins[number])

    def _matmul(
        self, op: Instruction, layer: str, tensor: str, bits: int, begin: int, end: int
    ) -> None:
        arch = self._arch
        for one in access.repetitions(op):
            reads = [access.streamed(one), access.stationary(arch, one)]
            for read in (*reads, access.old_values(arch, one)):
                if read is not None:
                    tiles = one.c_tiles if read.step else 1
                    self._read(_words(arch, read, range(tiles)), layer, end)
            self._write(_words(arch, access.result(arch, one)), layer, tensor, bits, begin, end)

    def _moved(self, op: Instruction) -> Words:
        return _words(self._arch, Access(op.addr, op.stride, op.rows, op.words, bool(op.wide)))

    def _read(self, words: Words, reader: str, cycle: int) -> None:
        for number in np.unique(self._writer[words]).tolist():
            if number != _NOBODY and self._names[number] != reader:
                edge = self._names[number], reader
                self.flow.edges[edge] = self.flow.edges.get(edge, 0) + 1
        for number in np.unique(self._holder[words]).tolist():
            if number != _NOBODY:
                held = self.flow.tensors[number]
                held.end = max(held.end, cycle)

    def _write(
        self, words: Words, writer: str, tensor: str, bits: int, begin: int, end: int
    ) -> None:
        number = self._numbers.get(tensor)
        if number is None:
            number = self._numbers[tensor] = len(self.flow.tensors)
            self.flow.tensors.append(Tensor(tensor, bits, begin, end))
        held = self.flow.tensors[number]
        held.end = max(held.end, end)
        held.cover(words, self._arch.bank_words)
        self._holder[words] = number
        if writer not in self._names:
            self._names.append(writer)
        self._writer[words] = self._names.index(writer)


def _times(activity: Activity, count: int) -> tuple[dict[int, int], dict[int, int]]:
    """Cycles of the first row and the last result of every MATMUL that has some."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for span in activity.of("array"):
        if 0 <= span.matmul < count:
            first.setdefault(span.matmul, span.begin)
    for span in activity.of("epilogue"):
        last[span.matmul] = span.end
    return first, last


def _words(arch: ArchConfig, rows: Access, tiles: Iterable[int] = (0,)) -> Words:
    """Words of K bytes of an access; all between its ends where a list names the rows."""
    if rows.list_base is not None:
        found = np.arange(rows.base, min(rows.end(), arch.token_words // (1 + rows.wide)))
    else:
        found = np.unique(np.concatenate([rows.words(c).reshape(-1) for c in tiles]))
        found = found[found >= 0]
    if not rows.wide:
        return found
    low = np.array([memmap.pair_banks(arch, address)[0] for address in found.tolist()], np.int64)
    return np.concatenate([low, low + arch.bank_words])
