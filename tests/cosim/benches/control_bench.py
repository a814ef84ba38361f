"""Jobs, instructions, errors and resets, as a driver sees them."""

from __future__ import annotations

import random

import cocotb
from bus_support import HoleyMemory, memory_read, memory_write, pauses, quiet, watch_channel
from cocotb.triggers import FallingEdge, ReadOnly
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave

from vitrify.arch import csr, isa, memmap
from vitrify.arch.csr import ErrorCode
from vitrify.arch.isa import Opcode, Region
from vitrify.cosim import bench
from vitrify.rtl.control.controller import ENGINE_EVENTS
from vitrify.rtl.control.dispatcher import ENGINES, FINISHED
from vitrify.rtl.control.run_ahead import WINDOW
from vitrify.rtl.interfaces import (
    COMMAND_DEPTH,
    EPILOGUE_COMMAND,
    FETCH_COMMAND,
    LOADER_COMMAND,
    MOVE_COMMAND,
    QUEUE,
    ROUTE_COMMAND,
)

SIZE = 1 << 16
PROGRAM = 0x3000
BASE_HIGH = 0x45  # the memory model repeats: upper address bits are looked at on the bus
COMMANDS = {"loader": LOADER_COMMAND, "fetch": FETCH_COMMAND, "epilogue": EPILOGUE_COMMAND,
            "loads": MOVE_COMMAND, "stores": MOVE_COMMAND, "routes": ROUTE_COMMAND}
#: Which sequence number an engine's work advances.
ADVANCES = {"epilogue": "matmuls", "loads": "loads", "stores": "stores", "routes": "routes"}


def queues(number, experts):
    """What the n-th ROUTE (0: none yet) leaves to each expert: (start, count)."""
    source = random.Random(number)
    return [(source.randrange(1 << 13), source.choice([0, 0, 1, source.randrange(4097)]))
            if number else (0, 0) for _ in range(experts)]


class Memory(HoleyMemory):
    """Folds addresses, so that bases may have upper bits."""

    async def read(self, address, length, **kwargs):
        return await super().read(address % SIZE, length, **kwargs)

    async def write(self, address, data, **kwargs):
        await super().write(address % SIZE, data, **kwargs)


class World:
    """Host, memory and engines around the device."""

    def __init__(self, dut):
        self.dut, self.arch = dut, bench.arch()
        self.memory = Memory(SIZE)
        self.memory.holes = []
        self.memory.mem[:] = random.randbytes(SIZE)
        self.slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst,
                              target=self.memory)
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        self.reads, self.beats = [], []
        for channel, names, sink in (("ar", ("addr", "len"), self.reads),
                                     ("aw", ("addr", "len"), []),
                                     ("w", ("data", "last"), self.beats)):
            cocotb.start_soon(watch_channel(dut, f"m_axi_{channel}", names, sink))
        self.taken = {name: [] for name in [*COMMANDS, "weights"]}
        self.frozen = set()      # engines that take nothing
        self.slow = 8            # most cycles that a command takes
        self.owed = []           # weights up to each MATMUL; the loader is busy until it has them
        self.forget()
        for name in COMMANDS:
            cocotb.start_soon(self._engine(name))
        cocotb.start_soon(self._weights())
        cocotb.start_soon(self._queues())
        cocotb.start_soon(self._reset_engines())

    def forget(self):
        self.finished = dict.fromkeys(ADVANCES.values(), 0)
        self.busy = dict.fromkeys(COMMANDS, False)
        for words in self.taken.values():
            words.clear()
        self._show()

    def _show(self):
        done = {name: value % 256 for name, value in self.finished.items()}
        self.dut.finished.value = bench.pack(FINISHED, done)
        idle = {name: not busy for name, busy in self.busy.items() if name != "routes"}
        matmul = len(self.taken["loader"])
        if 0 < matmul <= len(self.owed):
            idle["loader"] &= len(self.taken["weights"]) >= self.owed[matmul - 1]
        self.dut.idle.value = bench.pack(ENGINES, idle)

    async def _engine(self, name):
        dut, left = self.dut, 0
        valid, ready = getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__ready")
        payload = getattr(dut, f"{name}__payload")
        while True:
            ready.value = int(not self.busy[name] and name not in self.frozen)
            await ReadOnly()
            word = int(payload.value) if valid.value == 1 and ready.value == 1 else None
            await FallingEdge(dut.clk)
            if word is not None:
                self.taken[name].append(bench.unpack(COMMANDS[name], word))
                self.busy[name], left = True, random.randint(0, self.slow)
            elif self.busy[name] and left:
                left -= 1
            elif self.busy[name]:
                self.busy[name] = False
                if name in ADVANCES:
                    self.finished[ADVANCES[name]] += 1
            self._show()

    async def _weights(self):
        # Not bench.stream_get: a reset may take back what is offered.
        dut = self.dut
        while True:
            dut.weights__ready.value = int(random.random() > 0.2)
            await ReadOnly()
            if dut.weights__valid.value == 1 and dut.weights__ready.value == 1:
                self.taken["weights"].append(int(dut.weights__payload.value))
            await FallingEdge(dut.clk)

    async def _queues(self):
        """The router's answer, one cycle behind the question."""
        dut, expert = self.dut, 0
        while True:
            # While a ROUTE is under way the queues are anything.
            known = not self.busy["routes"]
            start, count = queues(self.finished["routes"], 64)[expert] if known else (5, 7)
            dut.queue.value = bench.pack(QUEUE, {"start": start, "count": count})
            await ReadOnly()
            expert = int(dut.expert.value)
            await FallingEdge(dut.clk)

    async def _reset_engines(self):
        while True:
            await FallingEdge(self.dut.clk)
            if self.dut.core_reset.value == 1:
                self.forget()

    async def read(self, name):
        return await self.host.read_dword(csr.BY_NAME[name].offset)

    async def write(self, name, value):
        await self.host.write_dword(csr.BY_NAME[name].offset, value)

    async def wide(self, name):
        return await self.read(f"{name}_LO") | await self.read(f"{name}_HI") << 32

    async def write_wide(self, name, value):
        await self.write(f"{name}_LO", value & 0xFFFFFFFF)
        await self.write(f"{name}_HI", value >> 32)

    async def field(self, register, name):
        bit = next(f for f in csr.BY_NAME[register].fields if f.name == name)
        return await self.read(register) >> bit.lsb & ((1 << bit.bits) - 1)

    async def control(self, name):
        bit = next(f for f in csr.BY_NAME["CONTROL"].fields if f.name == name)
        await self.write("CONTROL", 1 << bit.lsb)

    async def program(self, words, count=None):
        """Put instruction words (bytes) into memory and point the registers at them."""
        image = b"".join(words)
        self.memory.mem[PROGRAM : PROGRAM + len(image)] = image
        await self.write("PROGRAM_BASE_LO", PROGRAM + 0x40)  # low bits are ignored
        await self.write("PROGRAM_BASE_HI", BASE_HIGH)
        await self.write("PROGRAM_COUNT", len(words) if count is None else count)

    async def job(self, source, target, tasks=0):
        await self.write("TASK", tasks)
        for name, value in (("INPUT", source), ("OUTPUT", target)):
            await self.write_wide(f"{name}_BASE", value)
        await self.write("JOB_PUSH", 1)

    async def until(self, register, field, value, limit=3000):
        for _ in range(limit):
            if await self.field(register, field) == value:
                return
        raise AssertionError(f"{register}.{field} never became {value}")

    async def reset(self):
        await self.control("reset")
        await self.until("STATUS", "busy", 0)
        assert await self.read("ERROR_CODE") == 0
        assert await self.read("JOBS_DONE") == 0
        assert await self.read("IRQ_STATUS") == 0
        self.owed = []


async def start(dut, pause=0.0):
    quiet()
    await bench.start(dut)
    world = World(dut)
    if pause:
        for channel in (world.slave.write_if.aw_channel, world.slave.write_if.w_channel,
                        world.slave.write_if.b_channel, world.slave.read_if.ar_channel,
                        world.slave.read_if.r_channel):
            channel.set_pause_generator(pauses(pause))
    for kind in ("READ", "WRITE"):
        await world.write_wide(f"{kind}_LIMIT", 1 << memmap.ADDRESS_BITS)
    return world


def random_instruction(arch, opcode):
    values = {f.name: random.randint(f.low, f.max) for f in isa.FORMATS[opcode].fields}
    k = arch.depth
    if opcode is Opcode.MATMUL:
        values["stream_words"] = random.choice((0, 0, 1, random.randint(2, 40)))
        values["stream_offset"] = k * random.randrange((SIZE - PROGRAM) // k - 40)
        values["task_stride"] = 0 if random.random() < 0.7 else random.getrandbits(24)
        values["expert_rows"] = int(random.random() < 0.5)
    elif opcode is not Opcode.ROUTE:
        values["task_stride"] = random.choice((0, 1, random.getrandbits(24)))
        values["offset"] = k * (values["offset"] // k)
    return isa.make(opcode, **values)


def random_program(arch, length):
    kinds = (Opcode.MATMUL, Opcode.MATMUL, Opcode.LOAD, Opcode.STORE, Opcode.LOAD_INDEX,
             Opcode.ROUTE)
    return [random_instruction(arch, random.choice(kinds)) for _ in range(length)]


class Expectation:
    """What the dispatcher has to produce; sequence numbers go on across jobs."""

    def __init__(self, world):
        self.world, self.matmuls, self.loads, self.routes = world, 0, 0, 0
        self.commands = {name: [] for name in world.taken}
        #: Sequence number of every MATMUL of all programs so far; skipped ones have none.
        self.numbers = []
        self.skipped = 0

    def run(self, ops, source, target, tasks=0):
        base = {Region.INPUT: source, Region.OUTPUT: target,
                Region.PROGRAM: BASE_HIGH << 32 | PROGRAM}
        k = self.world.arch.depth
        for op in ops:
            extra = 0
            if op.opcode is not Opcode.ROUTE:
                extra = (tasks >> 8 * op.task_source & 255) * op.task_stride * k
            if op.opcode is Opcode.MATMUL:
                self._matmul(op, extra)
            elif op.opcode is Opcode.ROUTE:
                fields = {n: op.values[n] for n in ROUTE_COMMAND.members if n != "wait_seq"}
                waits = (self.matmuls - self._real(op.wait_distance)) % 256
                self.commands["routes"].append(fields | {"wait_seq": waits})
                self.routes += 1
            else:
                self._move(op, base, extra)

    def _real(self, distance):
        """Back to the last MATMUL that has a number, at or before the one that is meant."""
        if distance == 0:
            return 0
        # Before the first one, every distance is as good.
        later = [0] * (distance - 1) + self.numbers
        later = later[len(later) - distance + 1 :]
        return 1 + sum(number is not None for number in later)

    def _matmul(self, op, extra):
        values = dict(op.values)
        if op.expert_rows:
            start, count = queues(self.routes, 64)[op.expert]
            rows = min(op.rows, count - op.expert_first)
            if rows <= 0:
                self.numbers.append(None)
                self.skipped += 1
                return
            base = (start + op.expert_first) % (1 << 14)
            values |= {"rows": rows, "src_list_base": base, "dst_list_base": base}
        values |= {
            "seq": self.matmuls % 256, "load_seq": self.loads % 256, "skipped": self.skipped % 256,
            "dep_distance": self._real(op.dep_distance), "st_distance": self._real(op.st_distance),
        }
        for name in ("loader", "fetch", "epilogue"):
            self.commands[name].append({f: values[f] for f in COMMANDS[name].members})
        at, k = PROGRAM + op.stream_offset + extra, self.world.arch.depth
        for i in range(op.stream_words):
            first = (at + i * k) % SIZE
            word = self.world.memory.mem[first : first + k]
            self.commands["weights"].append(int.from_bytes(word, "little"))
        self.world.owed.append(len(self.commands["weights"]))
        self.matmuls += 1
        self.skipped = 0
        self.numbers.append(self.matmuls)

    def _move(self, op, base, extra):
        region = op.region if op.region in base else Region.OUTPUT
        fields = {"opcode": op.opcode, "address": (base[region] + op.offset + extra) % (1 << 40),
                  "wait": op.wait_distance != 0,
                  "wait_seq": (self.matmuls - self._real(op.wait_distance)) % 256}
        if op.opcode is Opcode.LOAD_INDEX:
            fields |= {"addr": op.base, "rows": 1, "words": op.count, "wide": 0}
        else:
            fields |= {n: op.values[n] for n in ("addr", "stride", "rows", "words", "wide")}
        self.commands["stores" if op.opcode is Opcode.STORE else "loads"].append(fields)
        self.loads += op.opcode is not Opcode.STORE

    def check(self):
        for name, commands in self.commands.items():
            taken = self.world.taken[name]
            assert len(taken) == len(commands), name
            for got, expected in zip(taken, commands, strict=True):
                if isinstance(got, dict):  # LOAD_INDEX has no stride
                    got = {field: got[field] for field in expected}
                assert got == expected, name


def pack(ops):
    return [isa.pack(op) for op in [*ops, isa.make(Opcode.END)]]


@cocotb.test()
@cocotb.parametrize(pause=[0.0, 0.4])
async def jobs(dut, pause):
    """Three jobs of a random program: commands, weights, counters, interrupts."""
    world = await start(dut, pause)
    expected = Expectation(world)
    ops = random_program(world.arch, 60)
    # Instructions behind END are prefetched, but never executed.
    await world.program([*pack(ops), *pack(ops)])
    await world.write("IRQ_ENABLE", 3)
    assert await world.field("STATUS", "space") == csr.QUEUE_DEPTH
    pairs = [(random.getrandbits(28) << 12, random.getrandbits(28) << 12, random.getrandbits(32))
             for _ in range(3)]
    for pair in pairs:
        expected.run(ops, *pair)
        await world.job(*pair)
    assert await world.field("STATUS", "busy") == 1
    await world.until("STATUS", "busy", 0)
    assert await world.read("JOBS_DONE") == 3
    assert await world.read("ERROR_CODE") == ErrorCode.NONE
    expected.check()
    assert dut.irq.value == 1
    await world.write("IRQ_STATUS", 1)
    await bench.cycles(dut, 3)
    assert dut.irq.value == 0
    assert await world.read("INSTRUCTIONS_LO") == 3 * (len(ops) + 1)
    beats = sum(length + 1 for _, length in world.reads)
    assert await world.read("DRAM_READ_BEATS_LO") == beats
    cycles = await world.read("CYCLES_LO")
    assert cycles > beats
    assert await world.read("CYCLES_LO") == cycles, "counted without a job"
    # A task may carry over into the upper half.
    assert {address >> 36 for address, _ in world.reads} == {BASE_HIGH >> 4}
    await world.control("clear_counters")
    assert await world.read("CYCLES_LO") == 0


@cocotb.test()
async def counters(dut):
    """Events count while a job runs, and only then."""
    world = await start(dut)
    await world.program(pack([]))
    names = list(ENGINE_EVENTS.members)
    for name in names:
        dut.events.value = bench.pack(ENGINE_EVENTS, {name: 1})
        await bench.cycles(dut, 5)
        await world.control("clear_counters")
        await world.job(0, 0)
        await bench.cycles(dut, 10)
        await world.until("STATUS", "busy", 0)
        cycles = await world.read("CYCLES_LO")
        assert cycles > 0
        for other in names:
            if not other.startswith("dram"):
                count = await world.read(f"{other.upper()}_LO")
                assert count == (cycles if other == name else 0), (name, other)
    dut.events.value = 0


@cocotb.test()
async def end_waits(dut):
    """END waits for the last engine."""
    world = await start(dut)
    ops = [isa.make(Opcode.MATMUL, stream_words=3)] + [
        random_instruction(world.arch, op) for op in (Opcode.LOAD, Opcode.STORE, Opcode.ROUTE)
    ]
    await world.program(pack(ops))
    for name in COMMANDS:
        world.frozen = {name}
        await world.job(0, 0)
        done = await world.read("JOBS_DONE")
        await bench.cycles(dut, 300)
        assert await world.read("JOBS_DONE") == done, f"did not wait for {name}"
        assert await world.field("STATUS", "busy") == 1
        world.frozen = set()
        await world.until("STATUS", "busy", 0)
        assert await world.read("JOBS_DONE") == done + 1


async def works(world):
    """A small program runs as if nothing had happened before."""
    ops = random_program(world.arch, 10)
    expected = Expectation(world)
    await world.program(pack(ops))
    expected.run(ops, 0x1000, 0x2000)
    await world.job(0x1000, 0x2000)
    await world.until("STATUS", "busy", 0)
    assert await world.read("JOBS_DONE") == 1
    assert await world.read("ERROR_CODE") == ErrorCode.NONE
    expected.check()


def flip(word):
    """An instruction with a wrong bit."""
    bit = random.randrange(8 * len(word))
    return (int.from_bytes(word, "little") ^ 1 << bit).to_bytes(len(word), "little")


@cocotb.test()
async def illegal_programs(dut):
    """Unknown opcodes, damaged instructions, programs without END stop the core at their index."""
    world = await start(dut)
    ops = random_program(world.arch, 7)
    cases = [([*pack(ops)[:5], bytes(64), *pack([])], None, 5),
             ([*pack(ops)[:3], b"\x07" + bytes(63), *pack([])], None, 3),
             *(([*pack(ops)[:i], flip(pack(ops)[i]), *pack([])], None, i) for i in range(8)),
             (pack(ops)[:-1], None, 7), (pack(ops), 4, 4), (pack(ops), 0, 0)]
    await world.write("IRQ_ENABLE", 2)
    for words, count, index in cases:
        await world.program(words, count)
        await world.job(0, 0)
        await world.job(0, 0)
        await world.until("STATUS", "error", 1)
        assert await world.read("ERROR_CODE") == ErrorCode.ILLEGAL_INSTRUCTION
        assert await world.wide("ERROR_INFO") == index
        assert await world.field("STATUS", "busy") == 0
        assert await world.read("IRQ_STATUS") == 2
        assert dut.irq.value == 1
        await bench.cycles(dut, 300)
        assert await world.read("JOBS_DONE") == 0
        await world.reset()
        assert dut.irq.value == 0
        await works(world)
        await world.reset()


@cocotb.test()
async def bus_errors(dut):
    """SLVERR stops the core with the burst's address; a reset heals it."""
    world = await start(dut)
    k = world.arch.depth
    op = isa.make(Opcode.MATMUL, stream_offset=0x1000, stream_words=1024 // k)
    for hole, code, address in (
        (PROGRAM, ErrorCode.BUS_READ, PROGRAM),
        (PROGRAM + 0x1200, ErrorCode.BUS_READ, PROGRAM + 0x1200),
    ):
        await world.program(pack([op]))
        world.memory.holes = [range(hole, hole + 8)]
        await world.job(0, 0)
        await world.until("STATUS", "error", 1)
        assert await world.read("ERROR_CODE") == code
        assert await world.wide("ERROR_INFO") == BASE_HIGH << 32 | address
        world.memory.holes = []
        await world.reset()
        await works(world)
        await world.reset()
    world.memory.holes = [range(0x800, 0x808)]
    await memory_write(dut, "store", 0x800, bytes(k), k)
    await world.until("STATUS", "error", 1)
    assert await world.read("ERROR_CODE") == ErrorCode.BUS_WRITE
    assert await world.wide("ERROR_INFO") == 0x800
    world.memory.holes = []
    await world.reset()
    await works(world)


@cocotb.test()
async def windows(dut):
    """A burst outside the windows stops the core with its address; a reset heals it."""
    world = await start(dut)
    k = world.arch.depth
    base = BASE_HIGH << 32 | PROGRAM
    op = isa.make(Opcode.MATMUL, stream_offset=0x1000, stream_words=4)
    for first, behind, address in (
        (base + 0x1000, base + 0x3000, base),           # the instructions
        (base, base + 0x1000, base + 0x1000),           # the weights
        (PROGRAM, PROGRAM + 0x3000, base),              # right but for the upper bits
    ):
        await world.program(pack([op]))
        await world.write_wide("READ_BASE", first)
        await world.write_wide("READ_LIMIT", behind)
        world.reads.clear()
        await world.job(0, 0)
        await world.until("STATUS", "error", 1)
        assert await world.read("ERROR_CODE") == ErrorCode.WINDOW_READ
        assert await world.wide("ERROR_INFO") == address
        assert all(first <= at < behind for at, _ in world.reads)
        await world.reset()
        await world.write_wide("READ_BASE", base)
        await world.write_wide("READ_LIMIT", base + 0xD000)
        await works(world)
        await world.reset()
    await world.write_wide("WRITE_LIMIT", 0x1000)
    await memory_write(dut, "store", 0x1000, bytes(k), k)
    await world.until("STATUS", "error", 1)
    assert await world.read("ERROR_CODE") == ErrorCode.WINDOW_WRITE
    assert await world.wide("ERROR_INFO") == 0x1000
    assert world.beats == []
    await world.reset()
    await works(world)


@cocotb.test()
async def overflow(dut):
    """The queue holds QUEUE_DEPTH jobs behind the one that runs; one more is an error."""
    world = await start(dut)
    await world.program(pack([random_instruction(world.arch, Opcode.STORE)]))
    world.frozen = {"stores"}
    await world.job(0, 0)
    await bench.cycles(dut, 100)
    for left in reversed(range(csr.QUEUE_DEPTH)):
        await world.job(0, 0)
        assert await world.field("STATUS", "space") == left
    assert await world.read("ERROR_CODE") == ErrorCode.NONE
    await world.job(0, 0)
    await world.until("STATUS", "error", 1)
    assert await world.read("ERROR_CODE") == ErrorCode.QUEUE_OVERFLOW
    world.frozen = set()
    await world.reset()
    await works(world)


@cocotb.test()
async def reset_in_flight(dut):
    """CONTROL.reset at any moment: bursts are finished, and a job pushed at once runs."""
    world = await start(dut, pause=0.3)
    k = world.arch.depth
    for _ in range(5):
        ops = random_program(world.arch, 20)
        await world.program(pack(ops))
        await world.job(0, 0)
        tasks = [cocotb.start_soon(memory_read(dut, "load", 0, 200, k, stall=0.3)),
                 cocotb.start_soon(memory_write(dut, "store", 0, bytes(100 * k), k))]
        await bench.cycles(dut, random.randint(1, 300))
        await world.control("reset")
        for task in tasks:
            task.cancel()
        for port in ("load__request", "store__request", "store__data"):
            getattr(dut, f"{port}__valid").value = 0
        await world.reset()
        await works(world)
        # No wait for the end of the reset: the queue is empty at once, and open.
        await world.control("reset")
        world.owed = []
        await works(world)
        await world.reset()


@cocotb.test()
async def run_ahead(dut):
    """Sequence numbers stay comparable however slow one engine is."""
    world = await start(dut)
    world.slow = 0
    matmul, load = isa.make(Opcode.MATMUL), isa.make(Opcode.LOAD)
    store = isa.make(Opcode.STORE, region=Region.OUTPUT)
    for slow, op, fast, name in ((load, matmul, "epilogue", "loads"),
                                 (store, matmul, "epilogue", "stores"),
                                 (matmul, load, "loads", "epilogue")):
        await world.program(pack([slow] + [op] * 300))
        world.frozen = {name}
        await world.job(0, 0)
        await bench.cycles(dut, 1500)
        passed = len(world.taken[fast])
        assert WINDOW <= passed <= 2 * WINDOW + COMMAND_DEPTH, passed
        world.frozen = set()
        await world.until("STATUS", "busy", 0)
        assert len(world.taken[fast]) == 300
        await world.reset()
