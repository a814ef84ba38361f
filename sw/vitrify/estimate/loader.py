"""The loader: weight stream and stationary tiles, a word or two a cycle, a buffer ahead of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import WITH_PARAMETERS, Instruction, Stationary

from .bus import Bus, Client
from .recorder import Observer
from .timing import Timing
from .tokens import Cycles, Reads, meets

#: Cycles from a word of the stream, or a read of the token memory, to the buffer's output.
_STREAMED, _READ = 3, 6
#: Cycles from a word that leaves the buffer to the one that takes its place.
_ROOM = 3
#: The first word of a tile leaves the buffer so long before the swap that frees its place.
_LEAD = 2
#: A row may be issued the swap's latency, less this, before its tile's last word leaves the buffer.
_PROMISE = 3
#: Cycles from the last read of the token memory to a tile word of the stream.
_SWITCH = 5
#: Cycles without a word between two phases.
_SETTLE = 2
#: Cycles from a word of a table to its first byte.
_TABLE = 4
#: Long before the first cycle.
NEVER = -(1 << 30)


@dataclass(kw_only=True)
class LoaderCommand:
    """One MATMUL in the loader, with the cycles in which what it waits for is over."""

    op: Instruction
    accepted: int
    #: The fetch has left MATMUL ``seq - 2``; MATMUL ``seq - 2``, the tiles' producer and the load
    #: of STORED ones finished.
    gains: int
    table: int
    produced: int
    loaded: int
    #: Cycle in which the table is complete.
    table_done: int = 0


@dataclass(frozen=True)
class Tile:
    """Earliest cycle of the first row that uses a tile, and what the tile waited for most."""

    ready: int
    why: str


class Loader:
    """Tiles in the order of the fetch; every method takes the words that come next.

    ``busy`` counts the words; ``time`` is the cycle of the latest one.
    """

    def __init__(
        self, arch: ArchConfig, timing: Timing, bus: Bus, weights: Client, rivals: list[Reads],
        observer: Observer,
    ) -> None:
        self._observer = observer
        self._arch, self._timing, self._bus, self._weights = arch, timing, bus, weights
        self._rivals = rivals
        self._reads = Reads(arch)
        self.time = 0
        self.busy = 0
        self._last_read = NEVER
        #: Cycles in which tile words left the buffer.
        self._left: list[int] = []
        self._c_tiles = 0
        self._lost: dict[str, int] = {}

    def begin(self, command: LoaderCommand) -> None:
        """Gains and table of a MATMUL."""
        op = command.op
        self._lost = {}
        self.time = command.accepted
        if op.load_gain:
            self._phase("dependency", command.gains)
            self._stream(op.gain_words or op.k_tiles)
        if op.load_table:
            self._phase("dependency", command.table)
            done = 0
            for _ in range(self._arch.table_words):
                self._stream(1)
                # A table is written byte by byte.
                done = max(done, self.time + _TABLE) + self._arch.depth
            command.table_done = done

    def tile(
        self, command: LoaderCommand, c: int, k: int, done: list[int], taken: int
    ) -> Tile:
        """Load tile ``k`` of c tile ``c``, and of those in the same pass.

        Parameters
        ----------
        done : cycles in which the c tiles of all MATMULs were finished, as far as known
        taken : cycle of the first row that used the previous tile
        """
        arch, op = self._arch, command.op
        count = min(memmap.tiles_per_pass(arch, op.nibbles), op.c_tiles - c)
        if op.stationary in WITH_PARAMETERS and k == 0:
            for number in range(self._c_tiles, self._c_tiles + count):
                before = number - self._arch.param_slots
                self._phase("epilogue", done[before] if before >= 0 else 0)
                self._stream(arch.tile_width(op.nibbles) // arch.lanes * arch.param_words)
        if op.stationary == Stationary.WEIGHTS:
            self._phase("tile", self._last_read + _SWITCH)
            entered = self._stream_tile(op)
        else:
            stored = op.stationary == Stationary.STORED
            self._phase("dependency", (command.loaded if stored else command.produced) + 1)
            entered = self._read_tile(op, c, k)
        if k == op.k_tiles - 1:
            self._c_tiles += count
        last = self._leave(entered, taken)
        ready = max(entered[-1] + 1, last - self._timing.swap + _PROMISE, taken + len(entered))
        why = max(self._lost, key=self._lost.__getitem__, default="tile")
        self._lost = {}
        return Tile(ready, why)

    # Words ---------------------------------------------------------------------------------
    def _phase(self, why: str, cycle: int) -> None:
        """Begin gains, a table, parameters or a tile: no word up to ``cycle``, nor at once."""
        self.time += _SETTLE
        self._wait(why, cycle)

    def _wait(self, why: str, cycle: int) -> None:
        """No word up to ``cycle``."""
        if cycle > self.time:
            self._lost[why] = self._lost.get(why, 0) + cycle - self.time
            self._observer.add("loader", why, self.time + 1, cycle + 1)
            self.time = cycle

    def _stream(self, words: int) -> None:
        """Words of the stream that are not part of a tile."""
        taken = self._weights.taken
        for _ in range(words):
            arrived = self._bus.fetch(self._weights, len(taken))
            self._wait("weights", arrived - 1)
            self.time += 1
            taken.append(self.time)
            self._observer.add("loader", "words", self.time, self.time + 1)
        self.busy += words

    def _stream_tile(self, op: Instruction) -> list[int]:
        """A tile of the stream: cycles in which its words are at the buffer's output.

        Words of nibbles are pairs of columns, or come twice, if the array does not divide them.
        """
        split = op.nibbles and not self._arch.sees_nibbles
        paired = split and self._arch.stored_weights
        halved = paired or (op.nibbles and self._arch.nibble_thirds)
        words, twice = self._arch.tile_width(op.nibbles) >> halved, split and not paired
        weights, taken = self._weights, self._weights.taken
        arrivals, left = weights.arrivals, self._left
        time, lost, entered = self.time, 0, []
        behind = len(left) - self._arch.streamed_ahead
        for word in range(words):
            time += 1
            if behind + word >= 0 and left[behind + word] + _ROOM > time:
                time = left[behind + word] + _ROOM
            number = len(taken)
            if number >= len(arrivals):
                self._bus.fetch(weights, number)
            if arrivals[number] > time:
                lost += arrivals[number] - time
                self._observer.add("loader", "weights", time, arrivals[number])
                time = arrivals[number]
            if not twice or word % 2:
                taken.append(time)
            entered.append(time + _STREAMED)
        self.time = time
        self.busy += words
        self._observer.words("words", entered, _STREAMED)
        if lost:
            self._lost["weights"] = self._lost.get("weights", 0) + lost
        return entered

    def _read_tile(self, op: Instruction, c: int, k: int) -> list[int]:
        """A tile from the token memory, behind epilogue and fetch where they want its banks.

        Some words of STORED tiles share one of the buffer, which the first of them takes.
        """
        banks = self._banks(op, c, k)
        shared = 2 if self._arch.tile_quads and op.stationary == Stationary.STORED else 1
        words, left = len(banks), self._left
        behind = len(left) - self._arch.tile_buffer
        codes = banks.tolist()
        rivals = [r.against(self.time, self.time + 16 * words + 1024, banks) for r in self._rivals]
        rivals = [r for r in rivals if r]
        time, entered = self.time, []
        for word in range(words):
            time += 1
            place = behind + word // shared
            if not word % shared and place >= 0 and left[place] + _ROOM + 1 > time:
                time = left[place] + _ROOM + 1
            while any(time in r and meets(r[time], codes[word]) for r in rivals):
                time += 1
                self._lost["bank"] = self._lost.get("bank", 0) + 1
            entered.append(time + _READ)
        self.time = self._last_read = time
        self._observer.words("reads", entered, _READ)
        entered = entered[shared - 1 :: shared]
        self.busy += len(entered)
        return entered

    def _banks(self, op: Instruction, c: int, k: int) -> Cycles:
        """Bank of each word of a tile that is read."""
        arch = self._arch
        if op.stationary == Stationary.STORED:
            pairs = arch.tile_pairs(op.nibbles)
            return -1 - (op.st_addr + (c * op.k_tiles + k) * pairs + np.arange(pairs)) // (
                arch.bank_words
            )
        if op.stationary == Stationary.ROWS:
            columns = op.c_last if c == op.c_tiles - 1 else arch.width
            rows, words = np.arange(columns) + c * arch.width, np.full(1, k)
        else:
            depth = op.k_last if k == op.k_tiles - 1 else arch.depth
            groups = max(1, arch.width // arch.depth)
            rows = np.arange(depth) + k * arch.depth
            words = c * arch.width // arch.depth + np.arange(groups)
        address = op.st_addr + rows[:, None] * op.st_stride + words
        return address.reshape(-1) // arch.bank_words

    def _leave(self, entered: list[int], taken: int) -> int:
        """Let a tile's words leave the buffer, one a cycle from the swap on; cycle of the last."""
        left = self._left
        time = taken + self._timing.swap - _LEAD - 1
        if left:
            time = max(time, left[-1])
        for word in entered:
            time = time + 1 if word <= time else word
            left.append(time)
        return time
