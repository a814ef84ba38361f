"""Dispatch, loads and stores: when an instruction reaches its engine, when its words move."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from vitrify.arch import formats, isa
from vitrify.arch.config import ArchConfig

from .bus import Bus, Client
from .recorder import Observer
from .timing import CHUNK, SETTLE

#: Cycles from an instruction's last word to its decoding, and from decoding to an engine's queue.
_ASSEMBLE = 1
_PUSH = 4
#: A chunk is requested when the instruction so far ahead of it is decoded.
_READ_AHEAD = CHUNK + 2
#: Cycles from one instruction to the next, and through an empty queue.
_DISPATCH = 5
QUEUE = 2
#: Cycles from a command in the mover to its request, besides those of the multiplication.
_REQUEST = 2
#: Cycles from a word that arrived to the row that may read it.
_VISIBLE = 3
#: Commands that the load engine holds outside of its queue.
_ENGAGED = 2
#: Number of an element beyond every load.
_LAST = 1 << 40
#: Cycles of a store that neither words nor the memory's latency explain.
_STORE = 22


class Dispatcher:
    """Instructions from DRAM, decoded in order."""

    def __init__(self, arch: ArchConfig, bus: Bus, client: Client, count: int) -> None:
        self._bus, self._client, self._count = bus, client, count
        self._words = isa.INSTRUCTION_BYTES / arch.depth
        self._size = arch.depth
        self._asked = 0
        self._offered = 0
        #: Cycle in which the latest instruction was decoded.
        self.decoded = 0
        self._next = 0

    def take(self, number: int) -> int:
        """Cycle in which instruction ``number``, the next one, could enter a queue."""
        if not self._asked:
            self._ask(2 * CHUNK, 1)
        offered = self._offered
        first = int(number * self._words)
        for word in range(first, max(first + 1, int((number + 1) * self._words))):
            if word < len(self._client.taken):
                continue
            offered = max(offered + 1, self._bus.fetch(self._client, word))
            self._client.taken.append(offered)
        self.decoded = max(self._next, offered + _ASSEMBLE)
        self._ask(number + _READ_AHEAD + 1, self.decoded + int(self._words))
        return self.decoded + _PUSH

    def _ask(self, until: int, cycle: int) -> None:
        """Request the chunks that begin before instruction ``until``."""
        while self._asked < min(until, self._count):
            chunk = min(CHUNK, self._count - self._asked)
            words = -(-chunk * isa.INSTRUCTION_BYTES // self._size)
            self._client.request(cycle, self._asked * isa.INSTRUCTION_BYTES, words)
            self._asked += CHUNK

    def pushed(self, cycle: int) -> None:
        """The instruction entered its queues in ``cycle``."""
        self._offered = self.decoded
        self._next = max(cycle + 1, self.decoded + _DISPATCH)


@dataclass
class _Load:
    """One LOAD: DRAM words and token-memory words still to come, and those that are visible."""

    start: int
    #: Number of the MATMUL that it waits for (negative: none).
    behind: int
    words: int
    #: DRAM words of an element, or elements of a DRAM word (LOAD_INDEX).
    share: int
    spread: int
    visible: list[int]


class Loads:
    """The load engine: a word a cycle, in order.

    Parameters
    ----------
    finished : cycle in which the MATMUL of a number has finished
    known : the same, ``None`` if it has not been executed
    """

    def __init__(
        self, arch: ArchConfig, bus: Bus, client: Client, finished: Callable[[int], int],
        known: Callable[[int], int | None], observer: Observer,
    ) -> None:
        self._observer = observer
        self._arch, self._bus, self._client, self._finished = arch, bus, client, finished
        self._known = known
        client.held = self._held
        self._loads: list[_Load] = []
        #: First DRAM word of each.
        self._firsts: list[int] = []
        self._words = 0
        self._accepted: list[int] = []
        self._cursor = 0
        self._word = 0
        self._time = 0

    def __len__(self) -> int:
        return len(self._loads)

    def room(self) -> int:
        """Earliest cycle in which the queue takes another command."""
        if len(self._accepted) < isa.COMMAND_DEPTH:
            return 0
        # Behind the queue one is at work and one has made its request.
        past = len(self._loads) - isa.COMMAND_DEPTH - _ENGAGED
        taken = self.finished(past) - _VISIBLE if past >= 0 else 0
        return max(taken, self._accepted[-isa.COMMAND_DEPTH])

    def push(self, cycle: int, op: isa.Instruction, matmuls: int) -> None:
        """A LOAD or LOAD_INDEX dispatched in ``cycle``, behind ``matmuls`` MATMULs."""
        depth = self._arch.depth
        if op.opcode is isa.Opcode.LOAD_INDEX:
            words, share, spread, rows = (
                -(-op.count * formats.INDEX_BYTES // depth), 1, depth // formats.INDEX_BYTES, 1
            )
        else:
            share, spread, rows = 1 + op.wide, 1, op.rows
            words = rows * op.words * share
        accepted = max(cycle + QUEUE, self._accepted[-1] + 1 if self._accepted else 0)
        asked = accepted + _REQUEST + rows.bit_length()
        self._accepted.append(asked)
        self._client.request(asked, op.offset, words)
        behind = matmuls - op.wait_distance if op.wait_distance else -1
        self._firsts.append(self._words)
        self._words += words
        self._loads.append(_Load(asked, behind, words, share, spread, []))

    def _held(self, word: int) -> int | None:
        """Cycle before which a DRAM word stays in the FIFO."""
        number = bisect_right(self._firsts, word) - 1
        load, start = self._loads[number], 0
        if load.behind >= 0:
            known = self._known(load.behind)
            if known is None:
                return None
            start = known
        return max(load.start, start) + word - self._firsts[number]

    def element(self, load: int, number: int) -> int:
        """Cycle in which element ``number`` (or the last) of ``load`` is in the token memory."""
        while self._cursor < load or (
            self._cursor == load and len(self._loads[load].visible) <= number
        ):
            if not self._step():
                break
        visible = self._loads[load].visible
        return visible[min(number, len(visible) - 1)]

    def finished(self, load: int) -> int:
        """Cycle in which ``load`` is complete."""
        return self.element(load, _LAST)

    def _step(self) -> bool:
        """Move one DRAM word; whether there was one."""
        if self._cursor == len(self._loads):
            return False
        load = self._loads[self._cursor]
        if load.behind >= 0:
            load.start, load.behind = max(load.start, self._finished(load.behind)), -1
        arrived = self._bus.fetch(self._client, self._word)
        self._time = max(self._time + load.spread, load.start, arrived)
        self._client.taken.append(self._time)
        self._observer.add(
            "loads", "words", self._time - load.spread + 1, self._time + 1, matmul=-1
        )
        self._word += 1
        load.words -= 1
        if load.words % load.share == 0:
            load.visible.append(self._time + _VISIBLE)
        if not load.words:
            self._cursor += 1
        return True


def store_end(arch: ArchConfig, op: isa.Instruction, start: int) -> int:
    """Cycle in which a STORE that may begin in ``start`` is in DRAM."""
    words = op.rows * op.words * (1 + op.wide)
    beats = arch.depth // arch.bus_bytes
    return start + words * beats + arch.dram.latency + _STORE


def job_end(matmuls: int, stores: int) -> int:
    """Cycle in which END counts the job, after everything finished."""
    return max(matmuls, stores) + SETTLE + 1
