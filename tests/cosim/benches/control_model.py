"""Host, memory and engines around the controller, random programs, and what they dispatch."""

from __future__ import annotations

import random

import cocotb
from bus_support import HoleyMemory, pauses, quiet, watch_channel
from cocotb.triggers import FallingEdge, ReadOnly
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave

from vitrify.arch import csr, isa, memmap, support
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Opcode, Region, Stationary
from vitrify.arch.limits import limits
from vitrify.cosim import bench
from vitrify.rtl.control.decode import payloads
from vitrify.rtl.control.dispatcher import ENGINES, FINISHED
from vitrify.rtl.interfaces import QUEUE, ROUTE_COMMAND

SIZE = 1 << 16
PROGRAM = 0x3000
BASE_HIGH = 0x45  # the memory model repeats: upper address bits are looked at on the bus
#: Queues of the engines.
COMMANDS = {name: layout for name, layout in payloads(bench.arch()).items() if name != "weights"}
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
        self.held = set()        # engines that say that they are at work
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
        idle = {name: not busy and name not in self.held
                for name, busy in self.busy.items() if name != "routes"}
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
        return csr.BY_NAME[register].field(name).of(await self.read(register))

    async def control(self, name):
        await self.write("CONTROL", csr.BY_NAME["CONTROL"].field(name).mask)

    def put(self, words, at):
        """Put instruction words (bytes) into memory."""
        image = b"".join(words)
        self.memory.mem[at : at + len(image)] = image

    async def program(self, words, count=None, at=PROGRAM):
        """Put instruction words (bytes) into memory and point the registers at them."""
        self.put(words, at)
        await self.write("PROGRAM_BASE_LO", at)
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


def random_instruction(arch, opcode, pattern=None):
    """A legal instruction; a MATMUL is one behind ``pattern``."""
    while True:
        values = {name: random.randint(*ends) for name, ends in limits(arch, opcode).items()}
        op = isa.make(opcode, **values | _sensible(arch, opcode, values, pattern))
        try:
            support.check(arch, isa.attach(op, pattern)[0])
        except ProgramError:
            continue
        return op


def _sensible(arch, opcode, values, pattern):
    """Other values for fields, so that random ones are legal not too seldom."""
    k = arch.depth
    if opcode is Opcode.MATMUL:
        more = {"stream_words": random.choice((0, 0, 1, random.randint(2, 40))),
                "stream_offset": k * random.randrange((SIZE - PROGRAM) // k - 40),
                "task_stride": 0 if random.random() < 0.7 else random.getrandbits(24),
                "expert_rows": int(random.random() < 0.5)}
        if pattern and pattern.tapped:
            more["k_tiles"] = pattern.taps_y * pattern.taps_x * pattern.tap_k
        if pattern and pattern.repeats:
            more |= {"stationary": random.choice((Stationary.ROWS, Stationary.COLUMNS)),
                     "expert_rows": 0, "gate": 0}
        return more
    if opcode is Opcode.PATTERN:
        more = {name: random.choice((0, values[name])) for name in ("repeats", "k_step")}
        most = 1024 // (values["taps_y"] * values["taps_x"]) if values["tapped"] else 1024
        return more | {"tap_k": random.randint(1, most)}
    if opcode is Opcode.ROUTE:
        return {"choices": min(values["choices"], values["experts"])}
    if opcode is Opcode.END:
        return {}
    return {"task_stride": random.choice((0, 1, random.getrandbits(24))),
            "offset": k * (values["offset"] // k)}


def random_program(arch, length):
    kinds = (Opcode.MATMUL, Opcode.MATMUL, Opcode.LOAD, Opcode.STORE, Opcode.LOAD_INDEX,
             Opcode.ROUTE, *([Opcode.PATTERN] * arch.patterns))
    ops, pattern = [], None
    for _ in range(length):
        ops.append(random_instruction(arch, random.choice(kinds), pattern))
        pattern = isa.attach(ops[-1], pattern)[1]
    return ops


class Expectation:
    """What the dispatcher has to produce; sequence numbers go on across jobs."""

    def __init__(self, world):
        self.world, self.matmuls, self.loads, self.routes = world, 0, 0, 0
        self.commands = {name: [] for name in world.taken}
        #: Sequence number of every MATMUL of all programs so far; skipped ones have none.
        self.numbers = []
        self.skipped = 0

    def run(self, ops, source, target, tasks=0, at=PROGRAM):
        base = {Region.INPUT: source, Region.OUTPUT: target,
                Region.PROGRAM: BASE_HIGH << 32 | at}
        k, pattern = self.world.arch.depth, None
        for op in ops:
            op, pattern = isa.attach(op, pattern)
            if op.opcode is Opcode.PATTERN:
                continue
            extra = 0
            if op.opcode is not Opcode.ROUTE:
                extra = (tasks >> 8 * op.task_source & 255) * op.task_stride * k
            if op.opcode is Opcode.MATMUL:
                self._matmul(op, extra + at)
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
        if self.world.arch.patterns:
            values |= {
                "gain_words": op.gain_words or op.k_tiles,
                "origin": (op.origin_y * op.map_width + op.origin_x) % (1 << 16),
                "line": op.map_width * op.tap_stride % (1 << 16),
            }
        for name in ("loader", "fetch", "epilogue"):
            self.commands[name].append({f: values[f] for f in COMMANDS[name].members})
        at, k = op.stream_offset + extra, self.world.arch.depth
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
