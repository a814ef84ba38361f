"""Values that travel along a pipeline of fixed length, and selection in pipelined steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amaranth import Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.utils import ceil_log2


class Delays:
    """Shift registers by name: a value known in one cycle, wanted in later ones.

    Registers appear as they are asked for; a value that is asked for in two cycles shares them.

    Parameters
    ----------
    m : Module
        Gets the registers, as its sub-module ``delays``.
    """

    def __init__(self, m: Module) -> None:
        # A module of its own: a register that is first asked for inside an If must not be
        # subject to it.
        self._m = m.submodules.delays = Module()
        self._chains: dict[str, tuple[int, list[Value]]] = {}
        self._resets: set[str] = set()

    def put(self, name: str, value: Value, cycle: int, *, reset: bool = False) -> None:
        """Enter ``value`` as it is in ``cycle``; ``reset`` for what must begin as zero."""
        assert name not in self._chains, f"{name} was entered before"
        self._chains[name] = (cycle, [value])
        if reset:
            self._resets.add(name)

    def at(self, name: str, cycle: int) -> Value:
        """The value in ``cycle``."""
        start, chain = self._chains[name]
        assert cycle >= start, f"{name} is known from cycle {start} on, not in {cycle}"
        while start + len(chain) <= cycle:
            later = Signal(
                chain[-1].shape(), name=f"{name}_{start + len(chain)}",
                reset_less=name not in self._resets,
            )
            self._m.d.sync += later.eq(chain[-1])
            chain.append(later)
        return chain[cycle - start]


def select_latency(count: int) -> int:
    """Cycles that :func:`select` takes: one for each factor of four."""
    return (ceil_log2(count) + 1) // 2


def select(
    m: Module, items: Sequence[Value], index: Callable[[int], Value], name: str
) -> Value:
    """One of ``items``, four to one in each cycle.

    Parameters
    ----------
    index : called with 0, 1 … for the index of the choice whose data are in that step
    """
    items, done = list(items), 0
    for step in range(select_latency(len(items))):
        ways = min(4, len(items))
        low = index(step)[done : done + ceil_log2(ways)]
        done += ceil_log2(ways)
        chosen = []
        for at in range(0, len(items), ways):
            one = Signal(len(items[at]), name=f"{name}_{step}_{at // ways}", reset_less=True)
            m.d.sync += one.eq(_mux(items[at : at + ways], low))
            chosen.append(one)
        items = chosen
    return items[0]


def _mux(items: Sequence[Value], index: Value) -> Value:
    if len(items) == 1:
        return items[0]
    half = 1 << len(index) - 1
    if len(items) <= half:
        return _mux(items, index[:-1])
    return Mux(index[-1], _mux(items[half:], index[:-1]), _mux(items[:half], index[:-1]))
