"""A reset that goes from unit to unit."""

from __future__ import annotations

from typing import Any

from amaranth import ClockDomain, ClockSignal, DomainRenamer, Module, Signal


class ResetChain:
    """Submodules with a reset register each, every one a cycle after the one before.

    One wire to all of them would be the longest of the core, and a gate before it, for the reset
    of the chip, would make it longer.  That reset sets all registers of a chain at once: its units
    begin anew a cycle after it, and the last one leaves reset ``length`` cycles after it.

    Parameters
    ----------
    m : gets the submodules
    reset : synchronous, and long enough that all units are in reset together
    """

    def __init__(self, m: Module, reset: Signal) -> None:
        self._m = m
        #: Reset of the last unit, for the next chain.
        self.end = reset
        #: Units so far.
        self.length = 0

    def add(self, name: str, unit: Any) -> None:
        """Make ``unit`` the submodule ``name``, in a clock domain of its own."""
        domain = ClockDomain(f"unit_{name}", local=True)
        own = Signal(name=f"reset_{name}", init=1)
        self._m.domains += domain
        self._m.d.comb += [domain.clk.eq(ClockSignal()), domain.rst.eq(own)]
        self._m.d.sync += own.eq(self.end)
        self._m.submodules[name] = DomainRenamer(domain.name)(unit)
        self.end = own
        self.length += 1
