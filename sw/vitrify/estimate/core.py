"""The core's engines on a program's instructions: when each MATMUL starts and ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np

from vitrify.arch import access, memmap
from vitrify.arch.isa import COMMAND_DEPTH, Instruction, Opcode
from vitrify.arch.modes import ADDING_OUTPUTS, Stationary
from vitrify.program import Program
from vitrify.runtime.routing import Routing, uniform

from .bus import Bus, Client
from .epilogue import COMMAND, Epilogue, Results
from .loader import Loader, LoaderCommand, Tile
from .moves import QUEUE, Dispatcher, Loads, job_end, store_end
from .recorder import Observer
from .router import Queues, route_cycles
from .rows import Rows, RowTimes, tensor_rows
from .timing import SLOTS, Timing
from .tokens import Cycles, rivals

#: Cycles from a command in the fetch to its first row; from a condition of a row, or of a whole
#: instruction, to the row.
_COMMAND, _ROW, _WHOLE = 9, 1, 2
#: Cycles from the last row of an instruction to the loader's gains.
_PROGRESS = 6
#: A queue takes a command so long after its engine took the one ``COMMAND_DEPTH`` before.
_ROOM = 2
#: Cycles from a decoded instruction to the rows of its expert; more of them if there are none.
_LOOK_UP, _SKIP = 6, 2
#: More words than any program has.
_EVERYTHING = 1 << 40
#: A read of the epilogue that is this far behind a pass does not meet it.
_WINDOW = 1 << 40

#: Told MATMULs done and in all.
Progress = Callable[[int, int], None]


@dataclass
class MatmulTimes:
    """One MATMUL: the cycles of its rows and of its results."""

    rows: RowTimes
    results: Results


@dataclass(frozen=True)
class Timeline:
    """Cycles of a job, from its start to its interrupt, and of its MATMULs."""

    cycles: int
    #: ``None``: left out, its expert has no rows.
    matmuls: tuple[MatmulTimes | None, ...]
    loader_words: int
    read_beats: int


def timeline(
    program: Program, progress: Progress | None = None, routing: Routing | None = None,
    observer: Observer | None = None,
) -> Timeline:
    """Predict one job of ``program``, whose rows go to experts as ``routing`` says.

    The engines are taken pass by pass: a pass knows everything that engines before it in the
    pipeline have done, and everything that older passes did to those behind it.
    """
    core = _Core(program, observer or Observer())
    queues = Queues(program, routing or uniform(program))
    total, ran = len(program.layers), []
    for number, op in enumerate(program.instructions()):
        resolved = queues.resolve(op)
        core.dispatch(number, resolved, looks_up=op.values.get("expert_rows", 0))
        if op.opcode is Opcode.MATMUL:
            ran.append(resolved is not None)
        if progress is not None:
            progress(len(core.matmuls), total)
    done = iter(core.matmuls)
    matmuls = tuple(next(done) if one else None for one in ran)
    return Timeline(core.end, matmuls, core.loader.busy, core.bus.beats)


@dataclass(frozen=True)
class _Issued:
    """A MATMUL in the queues of its engines, and what was dispatched before it."""

    op: Instruction
    pushed: int
    number: int
    loads: int
    #: It is done several times, or is one of these.
    repeated: bool = False


@dataclass(frozen=True)
class _Entered:
    """A MATMUL in its engines: when fetch and epilogue took their commands."""

    command: LoaderCommand
    fetched: int
    grouped: int


class _Core:
    def __init__(self, program: Program, observer: Observer) -> None:
        self.arch = arch = program.arch
        self.observer = observer
        self.timing = timing = Timing.of(arch)
        instructions = Client(arch, arch.fifo_words["instructions"])
        self.weights = Client(
            arch, arch.weight_fifo_words,
            ahead=arch.streamed_ahead + arch.most_groups * arch.param_words,
        )
        moves = Client(arch, arch.fifo_words["loads"], ahead=_EVERYTHING)
        clients = {"instructions": instructions, "weights": self.weights, "loads": moves}
        self.bus = Bus(arch, clients, observer)
        self.dispatcher = Dispatcher(arch, self.bus, instructions, program.instruction_count)
        self.loads = Loads(arch, self.bus, moves, self._finished, self._known, observer)
        self.rows, self.epilogue = Rows(arch, observer), Epilogue(arch, timing, observer)
        self.loader = Loader(
            arch, timing, self.bus, self.weights, [self.epilogue.reads, self.rows.reads], observer
        )
        self.matmuls: list[MatmulTimes] = []
        self._queue: deque[_Issued] = deque()
        self._count = 0
        #: Cycles in which the last engine took each command.
        self._taken: list[int] = []
        self._entered: _Entered | None = None
        self._groups_end: list[int] = []
        self._stored = 0
        self._routed = 0
        self.end = 0

    def dispatch(self, number: int, op: Instruction | None, looks_up: int = 0) -> None:
        """Let an instruction enter its queues; execute MATMULs where that has to be known.

        One that ``looks_up`` its rows waits for the router; ``None`` then finds that it has none.
        """
        cycle = self.dispatcher.take(number)
        if looks_up:
            cycle = max(cycle + _LOOK_UP, self._routed)
        if op is None:
            cycle += _SKIP
        elif op.opcode is Opcode.MATMUL:
            if self._count >= COMMAND_DEPTH:
                cycle = max(cycle, self._accepted(self._count - COMMAND_DEPTH) + _ROOM)
            self._queue.append(_Issued(op, cycle + QUEUE, self._count, len(self.loads)))
            self._count += 1
            if op.stream_words:
                self.weights.request(cycle + QUEUE, op.stream_offset, op.stream_words)
        elif op.opcode in (Opcode.LOAD, Opcode.LOAD_INDEX):
            cycle = max(cycle, self.loads.room())
            self.loads.push(cycle, op, self._count)
        elif op.opcode is Opcode.ROUTE:
            cycle = max(cycle, self._routed)
            begin = max(cycle, self._finished(self._count - op.wait_distance))
            self._routed = begin + route_cycles(self.arch, op)
            self.observer.add("router", "ROUTE", begin, self._routed, matmul=-1)
        elif op.opcode is not Opcode.PATTERN:
            while self._queue:
                self._execute()
            if op.opcode is Opcode.STORE:
                start = max(cycle + QUEUE, self._stored)
                if op.wait_distance:
                    start = max(start, self._finished(self._count - op.wait_distance))
                self._stored = store_end(self.arch, op, start)
                self.observer.add("stores", "STORE", start, self._stored, matmul=-1)
            else:
                finished = self._finished(self._count - 1) if self._count else 0
                self.end = job_end(max(cycle, finished), self._stored)
        self.dispatcher.pushed(cycle)
        name = "left out" if op is None else op.opcode.name
        self.observer.add(
            "instructions", name, self.dispatcher.decoded, cycle + 1,
            matmul=self._count - 1 if name == "MATMUL" else -1,
        )

    def _finished(self, number: int) -> int:
        """Cycle in which MATMUL ``number`` has finished."""
        while self._queue and len(self.matmuls) <= number:
            self._execute()
        return self.matmuls[number].results.finished

    def _known(self, number: int) -> int | None:
        """The same, if it has been executed."""
        return self.matmuls[number].results.finished if number < len(self.matmuls) else None

    # One MATMUL ----------------------------------------------------------------------------
    def _accepted(self, number: int) -> int:
        """Cycle in which the last engine took the command of MATMUL ``number``."""
        while len(self.matmuls) < number:
            self._execute()
        if self._entered is None and len(self.matmuls) == number:
            self._enter()
        return self._taken[number]

    def _enter(self) -> None:
        """Let loader, fetch and epilogue take the oldest command."""
        issued = self._queue[0]
        op, at, past = issued.op, issued.pushed, issued.number - SLOTS
        fetched = max(at, self.matmuls[past].rows.end + 2) if past >= 0 else at
        grouped = max(at, self._groups_end[past] + 2) if past >= 0 else at
        command = LoaderCommand(
            op=op, accepted=max(at, self.loader.time + 1),
            gains=self.matmuls[past].rows.end + _PROGRESS if past >= 0 else 0,
            table=self.matmuls[past].results.finished if past >= 0 else 0,
            produced=self.matmuls[issued.number - op.st_distance].results.finished
            if op.st_distance else 0,
            loaded=self.loads.finished(issued.loads - op.load_distance)
            if op.stationary == Stationary.STORED else 0,
        )
        self._taken.append(max(command.accepted, fetched, grouped))
        self._entered = _Entered(command, fetched, grouped)

    def _execute(self) -> None:
        """Take the oldest MATMUL through all engines."""
        if self._entered is None:
            self._enter()
        entered, self._entered = self._entered, None
        assert entered is not None
        command, fetched, grouped = entered.command, entered.fetched, entered.grouped
        loader, rows, epilogue = self.loader, self.rows, self.epilogue
        issued = self._queue.popleft()
        op = issued.op
        self.observer.matmul, self.observer.tile = issued.number, None
        loader.begin(command)
        times = MatmulTimes(RowTimes(), Results())
        drain = _Drain(self, issued, grouped, command, times.results)
        per_pass = memmap.tiles_per_pass(self.arch, op.nibbles)
        for one, c, k in product(
            access.repetitions(op), range(0, op.c_tiles, per_pass), range(op.k_tiles)
        ):
            if one is not op:
                issued = replace(issued, op=one, repeated=True)
                command.op = op = one
                drain.repeat(one)
            last = k == op.k_tiles - 1
            if last:
                drain.catch_up()
            self.observer.tile = c, k
            tile = loader.tile(command, c, k, epilogue.done, rows.taken)
            own = partial(drain.rivals, c) if last and op.output in ADDING_OUTPUTS else None
            cycles = self._pass(issued, tile, c, k, fetched + _COMMAND, own, times)
            for ready in range(c, min(c + per_pass, op.c_tiles)) if last else ():
                drain.push(ready, cycles + self.timing.drain)
        drain.catch_up()
        self._groups_end.append(epilogue.time)
        self.matmuls.append(times)

    def _pass(
        self, issued: _Issued, tile: Tile, c: int, k: int, available: int,
        own: Callable[[Cycles, Cycles], dict[int, int]] | None, times: MatmulTimes,
    ) -> Cycles:
        """Issue the rows of a pass."""
        op, rows, epilogue = issued.op, self.rows, self.epilogue
        needed = self._needed(issued, c, k)
        banks = rows.banks(op, c, k)
        others = epilogue.reads.against(rows.time, _WINDOW, banks)
        last = k == op.k_tiles - 1
        drained = self._drained(op.rows) if last else None
        return rows.issue(
            op, tile, available, needed, drained, others,
            partial(own, banks) if own else None, banks, times.rows,
        )

    def _drained(self, count: int) -> Cycles | None:
        """When the rows of the previous c tile have left the drain memory."""
        replaced = self.epilogue.replaced
        if not len(replaced) or replaced[-1] <= self.rows.time:
            return None
        if count <= len(replaced):
            return replaced[:count]
        return np.pad(replaced, (0, count - len(replaced)), mode="edge")

    def _needed(self, issued: _Issued, c: int, k: int) -> Cycles | None:
        """When the data of each row are in the token memory."""
        op, ready = issued.op, None
        if 0 < op.dep_distance <= issued.number:
            producer = self.matmuls[issued.number - op.dep_distance]
            ready = self._produced(issued, c, k, producer.results)
        if op.load_distance:
            loaded = self._loaded(op, k, issued.loads - op.load_distance)
            ready = loaded if ready is None or loaded is None else np.maximum(ready, loaded)
        return ready

    def _produced(self, issued: _Issued, c: int, k: int, results: Results) -> Cycles | None:
        op, finished = issued.op, results.finished + _WHOLE
        if finished <= self.rows.time:
            return None
        if op.src_list or op.dep_end or issued.repeated:
            return np.full(op.rows, finished)
        early = results.last_tile + _WHOLE
        stream = access.streamed(op)
        if stream.row_words(c)[k % stream.width] < op.dep_k:
            return np.full(op.rows, early)
        wanted = tensor_rows(op, k)
        written = results.rows[np.minimum(wanted, len(results.rows) - 1)] + _ROW
        ready = np.minimum(finished, np.maximum(early, written))
        return np.where(wanted < len(results.rows), ready, finished)

    def _loaded(self, op: Instruction, k: int, load: int) -> Cycles:
        if not op.load_stream:
            return np.full(op.rows, self.loads.finished(load) + _WHOLE)
        first = k * op.rows
        return np.array(
            [self.loads.element(load, first + row) + _ROW for row in range(op.rows)]
        )


class _Drain:
    """C tiles of a MATMUL on their way to the epilogue.

    One that waits for a load is put off until somebody has to know: rows and weights go on
    meanwhile, and share the bus with the load.
    """

    def __init__(
        self, core: _Core, issued: _Issued, accepted: int, command: LoaderCommand,
        results: Results,
    ) -> None:
        self._core, self.op, self._accepted = core, issued.op, accepted
        self._load = issued.loads - issued.op.epi_load_distance
        self._command, self._results, self._number = command, results, issued.number
        self._waiting: tuple[int, Cycles] | None = None
        #: The first c tile has been taken.
        self._begun = False

    def push(self, c: int, drained: Cycles) -> None:
        """The sums of c tile ``c`` are there at the cycles ``drained``."""
        self.catch_up()
        self._waiting = c, drained
        if not self._waits(c):
            self.catch_up()

    def _waits(self, c: int) -> bool:
        return bool(self.op.epi_load_distance) and (c == 0 or bool(self.op.epi_load_stream))

    def _loaded(self, c: int) -> int:
        """When the load has what c tile ``c`` is added to."""
        op, loads = self.op, self._core.loads
        if not op.epi_load_stream:
            return loads.finished(self._load)
        arch = self._core.arch
        elements = op.rows * -(-(c + 1) * arch.tile_width(op.nibbles) // arch.depth)
        return loads.element(self._load, elements - 1)

    def rivals(self, c: int, banks: Cycles, cycles: Cycles) -> dict[int, int]:
        """Reads of old values that rows at ``cycles`` would cause in ``banks``."""
        core = self._core
        start = self._start(c, 0)
        chosen = core.epilogue.choose(self.op, c, start, cycles + core.timing.drain)
        return rivals(*core.epilogue.old_values(self.op, c, chosen), banks)

    def _start(self, c: int, load: int) -> int:
        if c or self._begun:
            return load and load + COMMAND
        return self._core.epilogue.start(
            self.op, self._accepted, self._command.table_done, load
        )

    def repeat(self, op: Instruction) -> None:
        """Go on with another repetition, which waits for nothing new."""
        self.catch_up()
        self.op = op

    def catch_up(self) -> None:
        """Let the epilogue take what waits."""
        if self._waiting is None:
            return
        core, op = self._core, self.op
        (c, drained), self._waiting = self._waiting, None
        start = self._start(c, self._loaded(c) if self._waits(c) else 0)
        chosen = core.epilogue.choose(op, c, start, drained)
        core.epilogue.finish(op, c, chosen, self._results, self._number)
        self._begun = True
