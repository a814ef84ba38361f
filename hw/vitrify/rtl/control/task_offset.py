"""DRAM address of an instruction: base, offset, and a stride for each task number."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import isa, memmap

_BASE_BITS = exact_log2(memmap.ALIGNMENT)
_TASK_STRIDE = isa.FORMATS[isa.Opcode.MATMUL].field("task_stride").bits
_OFFSET_BITS = isa.FORMATS[isa.Opcode.MATMUL].field("stream_offset").bits


class TaskOffset(wiring.Component):
    """Adds bit by bit of the task number: nothing for most instructions, ``TASK_BITS`` at most.

    Parameters
    ----------
    depth : bytes of a word, the unit of strides

    Members
    -------
    load : :py:`In(1)`
        Take the other inputs.
    base : :py:`In(ADDRESS_BITS)`
        A multiple of ``ALIGNMENT``.
    offset, stride, task : :py:`In(32)`, :py:`In(24)`, :py:`In(TASK_BITS)`
    address : :py:`Out(ADDRESS_BITS)`
    busy : :py:`Out(1)`
        From the cycle after ``load`` on, at least once: ``address`` is not complete.
    """

    load: Signal
    base: Signal
    offset: Signal
    stride: Signal
    task: Signal
    address: Signal
    busy: Signal

    def __init__(self, depth: int) -> None:
        self._shift = exact_log2(depth)
        super().__init__({
            "load": In(1), "base": In(memmap.ADDRESS_BITS), "offset": In(_OFFSET_BITS),
            "stride": In(_TASK_STRIDE), "task": In(isa.TASK_BITS),
            "address": Out(memmap.ADDRESS_BITS), "busy": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # The inputs are picked from the instruction by its opcode: enough for one cycle.
        base, offset, task = (
            Signal.like(port, reset_less=True) for port in (self.base, self.offset, self.task)
        )
        loading = Signal()
        left = Signal(isa.TASK_BITS)
        step = Signal(_TASK_STRIDE + isa.TASK_BITS)
        m.d.comb += self.busy.eq(loading | (left != 0))
        m.d.sync += loading.eq(self.load)
        with m.If(self.load):
            m.d.sync += [
                base.eq(self.base), offset.eq(self.offset), task.eq(self.task),
                step.eq(self.stride), left.eq(0),
            ]
        with m.Elif(loading):
            m.d.sync += [
                self.address.eq(
                    Cat(offset[:_BASE_BITS], base[_BASE_BITS:] + offset[_BASE_BITS:])
                ),
                left.eq(Mux(step == 0, 0, task)),
            ]
        with m.Else():
            m.d.sync += [left.eq(left >> 1), step.eq(step << 1)]
            with m.If(left[0]):
                m.d.sync += self.address.eq(self.address + (step << self._shift))
        return m
