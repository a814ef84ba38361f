"""The read side of the DRAM bus: three clients with FIFOs share bursts of a bounded length."""

from __future__ import annotations

from collections.abc import Callable

from vitrify.arch.config import ArchConfig

from .dram import Memory
from .recorder import Observer
from .timing import burst_units, unit_bytes

#: Cycles from a request to its first burst, from a bus beat to its word at the client.
_SPLIT = 3
_DELIVER = 5
#: Cycles from a word that leaves a FIFO to the burst that takes its place.
_CREDIT = 2


def _never(_word: int) -> int:
    return 0


class Client:
    """A reader of DRAM words, in order.

    ``arrivals[n]`` is the cycle in which word ``n`` of all its requests is at hand; whoever uses
    the word appends the cycle in which it does to ``taken``.  Of ``ahead`` words beyond those it is
    taken for granted that they are used as they come.
    """

    def __init__(self, arch: ArchConfig, fifo_words: int, *, ahead: int = 0) -> None:
        #: Cycle before which a word is not used, ``None`` if nobody knows yet.
        self.held: Callable[[int], int | None] = _never
        self._unit = unit_bytes(arch)
        #: Units that make a word; a burst splits no unit.
        self.parts = arch.depth // self._unit
        self._ahead = ahead
        self._fifo = fifo_words * self.parts
        self._burst = burst_units(arch, fifo_words)
        self.arrivals: list[int] = []
        self.taken: list[int] = []
        #: Bursts not yet on the bus: earliest cycle, address and number of its units.
        self._pending: list[tuple[int, int, int]] = []
        self._next = 0
        self._issued = 0
        self._not_before = 0

    def request(self, cycle: int, address: int, words: int) -> None:
        """Ask for ``words`` words from byte ``address`` on; bursts are aligned."""
        at, left, first = address // self._unit, words * self.parts, cycle + _SPLIT
        while left:
            size = min(left, self._burst - at % self._burst)
            self._pending.append((first, at, size))
            at, left = at + size, left - size

    def ready(self) -> int | None:
        """Earliest cycle of the next burst; ``None`` if there is none, or if it is not known."""
        if self._next == len(self._pending):
            return None
        cycle, _, units = self._pending[self._next]
        freed = -(-(self._issued + units - self._fifo) // self.parts)  # words
        cycle = max(cycle, self._not_before)
        if freed <= 0:
            return cycle
        if freed <= len(self.taken):
            return max(cycle, self.taken[freed - 1] + _CREDIT)
        if freed <= min(len(self.taken) + self._ahead, len(self.arrivals)):
            held = self.held(freed - 1)
            return None if held is None else max(
                cycle, max(self.arrivals[freed - 1], held) + _CREDIT
            )
        return None

    def issue(self, cycle: int) -> tuple[int, int]:
        """Put the next burst on the bus; returns the address and the number of its units."""
        _, at, units = self._pending[self._next]
        self._next += 1
        self._issued += units
        self._not_before = cycle + 2
        return at, units

    def arrive(self, units: list[int]) -> None:
        """Units of a burst, all of them issued, are at hand in these cycles."""
        missing = (len(units) - self._issued) % self.parts  # units until a word is complete
        missing = missing or self.parts
        self.arrivals.extend(units[missing - 1 :: self.parts])


class Bus:
    """Serves the clients in turn; bursts overlap as far as master and DRAM allow."""

    def __init__(
        self, arch: ArchConfig, clients: dict[str, Client], observer: Observer
    ) -> None:
        self._observer = observer
        self._unit, self._beats = unit_bytes(arch), unit_bytes(arch) // arch.bus_bytes
        self._memory = Memory(arch)
        self._master = arch.outstanding
        # Several ports have their bursts each.
        behind = arch.dram.outstanding if arch.ports == 1 else arch.outstanding
        self._outstanding = min(arch.outstanding, behind)
        self._names, self._clients = list(clients), list(clients.values())
        self._turn = 0
        self._free = 0
        self._last_beats: list[int] = []
        #: Beats moved.
        self.beats = 0

    def fetch(self, client: Client, word: int) -> int:
        """Cycle in which word ``word`` of ``client`` arrives."""
        while len(client.arrivals) <= word:
            self._burst(client)
        return client.arrivals[word]

    def _burst(self, wanted: Client) -> None:
        """Put the next burst of any client on the bus."""
        clients, count = self._clients, len(self._clients)
        ready = [client.ready() for client in clients]
        known = [cycle for cycle in ready if cycle is not None]
        if wanted.ready() is None:
            raise AssertionError("a client waits for words that nobody requested")
        cycle = max(self._free, min(known))
        chosen = next(
            i for i in (*range(self._turn + 1, count), *range(self._turn + 1))
            if (at := ready[i]) is not None and at <= cycle
        )
        self._turn = chosen
        ends = self._last_beats
        if len(ends) >= self._master:
            cycle = max(cycle, ends[-self._master] + 1)
        client = clients[chosen]
        at, units = client.issue(cycle)
        accepted = cycle + 1
        if len(ends) >= self._outstanding:
            accepted = max(accepted, ends[-self._outstanding] + 1)
        self._free = accepted + 1
        step = self._beats
        beats = self._memory.read(at * self._unit, units * step, accepted)
        client.arrive([beat + _DELIVER for beat in beats[step - 1 :: step]])
        self._observer.burst(self._names[chosen], beats)
        ends.append(beats[-1])
        if len(ends) > 2 * self._master:
            del ends[: self._master]
        self.beats += units * step
