"""Bias and multiplier of every column, for the next few c tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amaranth import Cat, Const, Module, Signal, signed, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces

_BIAS_BYTES = 4
_MULTIPLIER_BYTES = formats.MULTIPLIER_BITS // 8


class ParamMemory(wiring.Component):
    """``param_slots`` c tiles of parameters, written by the word, read by the lane group.

    Every kind has its own address, because bias and multiplier are wanted in different cycles.

    Members
    -------
    write : :py:`In(pipe(param_write(arch)))`
    bias_at, multiplier_at : :py:`In(StructLayout)`
        ``slot`` and ``group`` (:attr:`place`).
    bias, multiplier : :py:`Out(ArrayLayout)`
        Of E lanes, :attr:`LATENCY` cycles after the address.
    """

    #: Cycles from the address to the parameters.
    LATENCY = 1

    write: wiring.PureInterface
    bias_at: data.View
    multiplier_at: data.View
    bias: data.View
    multiplier: data.View

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self.place = data.StructLayout({
            "group": ceil_log2(arch.most_groups), "slot": exact_log2(arch.param_slots),
        })
        super().__init__({
            "write": In(interfaces.pipe(interfaces.param_write(arch))),
            "bias_at": In(self.place),
            "multiplier_at": In(self.place),
            "bias": Out(data.ArrayLayout(signed(formats.BIAS_BITS), arch.lanes)),
            "multiplier": Out(data.ArrayLayout(formats.MULTIPLIER_BITS, arch.lanes)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        lanes, middle = self.arch.lanes, _BIAS_BYTES * self.arch.lanes
        end = middle + _MULTIPLIER_BYTES * lanes
        bias = self._kind(m, "bias", 0, middle, self.bias_at)
        multiplier = self._kind(m, "multiplier", middle, end, self.multiplier_at)
        m.d.comb += [
            self.bias.eq(Cat(*(
                bias.word_select(lane, 8 * _BIAS_BYTES)[: formats.BIAS_BITS]
                for lane in range(lanes)
            ))),
            self.multiplier.eq(multiplier),
        ]
        return m

    def _kind(self, m: Module, kind: str, first: int, end: int, at: data.View) -> Value:
        """Memories for bytes ``first`` to ``end`` of a group's parameters; what they read."""
        write = self.write.p
        found: list[Value] = []
        for word, low, high in self._overlaps(first, end):
            memory = Memory(
                shape=unsigned(8 * (high - low)),
                depth=1 << self.place.size, init=[],
                attrs={"ram_style": "distributed"},
            )
            m.submodules[f"{kind}_{word}"] = memory
            put, get = memory.write_port(), memory.read_port()
            m.d.comb += [
                put.en.eq(self.write.valid & (write.word == word)),
                put.addr.eq(Cat(write.group[: self.place["group"].width], write.slot)),
                put.data.eq(write.data[8 * low : 8 * high]),
                get.en.eq(Const(1)),
                get.addr.eq(at.as_value()),
            ]
            found.append(get.data)
        read = Signal(8 * (end - first), name=f"{kind}_bytes")
        m.d.comb += read.eq(Cat(*found))
        return read

    def _overlaps(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Words that hold the bytes, with the range inside each."""
        depth = self.arch.depth
        for word in range(self.arch.param_words):
            low, high = max(first, word * depth), min(end, (word + 1) * depth)
            if low < high:
                yield word, low - word * depth, high - word * depth
