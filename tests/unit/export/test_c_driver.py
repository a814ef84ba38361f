"""The C driver on the simulated core: golden's outputs, and errors by their codes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.support import c_driver
from tests.support.boards import small_program
from tests.support.c_driver import CDriver, error
from tests.support.execute import same_results
from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch import csr
from vitrify.arch.isa import INSTRUCTION_BYTES
from vitrify.arch.memmap import ALIGNMENT
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.cosim.core import Misfortune
from vitrify.cosim.transport import SimulatedTransport
from vitrify.driver import CoreDriver, LinkError
from vitrify.export import Run
from vitrify.export.files import DRIVER
from vitrify.program import pack_input
from vitrify.rtl.bus.axi import Resp
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.backends.golden import GoldenBackend

pytestmark = pytest.mark.slow

ARCH = preset("nano")
PROGRAM, FEED, _ = small_program(ARCH)
REGIONS = pack_input(ARCH, PROGRAM.input, FEED[PROGRAM.input.name])
GOLDEN, _ = GoldenBackend(PROGRAM).execute(REGIONS, [0] * len(REGIONS), len(REGIONS))
BASE = 3 * ALIGNMENT
CYCLES_PER_MS = 200


class Transport(SimulatedTransport):
    """Its memory begins at ``BASE``; ``changed`` may replace what is written to registers."""

    memory_base = BASE
    changed = staticmethod(lambda _name, value: value)
    broken = False

    def read_register(self, offset):
        if self.broken:
            raise LinkError("unplugged")
        return super().read_register(offset)

    def write_register(self, offset, value):
        name = next(r.name for r in csr.REGISTERS if r.offset == offset)
        super().write_register(offset, self.changed(name, value))

    def read_memory(self, offset, size):
        return super().read_memory(BASE + offset, size)

    def write_memory(self, offset, data):
        super().write_memory(BASE + offset, data)

    def wait(self, seconds):
        self.core.run(random.randint(50, 2_000))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    return c_driver.compiled(
        c_driver.exported(PROGRAM, Run(REGIONS, (0,) * len(REGIONS), GOLDEN), folder)
    )


@pytest.fixture(scope="module")
def transport():
    made = Transport(ARCH, memory=1 << 20)
    made.memory_size -= BASE
    yield made
    made.close()


@pytest.fixture
def driver(library, transport):
    random.seed(1)
    transport.core.order(Misfortune.NONE, 0, 0)
    transport.core.reset()
    made = CDriver(library, PROGRAM, transport,
                   lambda: transport.core.state().cycle / CYCLES_PER_MS)
    assert made.open() == c_driver.OK
    return made


def heals(driver, transport):
    """The next run is right."""
    transport.core.order(Misfortune.NONE, 0, 0)
    code, outputs = driver.run(REGIONS)
    assert code == c_driver.OK
    assert same_results(PROGRAM, outputs, GOLDEN)


def test_jobs_are_goldens(driver, transport):
    transport.core.extent()
    for _ in range(2):
        heals(driver, transport)
    end = BASE + transport.memory_size
    read, written = transport.core.extent()
    assert BASE <= read[0] <= read[-1] < end
    assert BASE + len(PROGRAM.image) <= written[0] <= written[-1] < end
    cycles = c_driver.ctypes.c_uint64()
    assert driver._library.test_counter(
        csr.BY_NAME["CYCLES_LO"].offset, c_driver.ctypes.byref(cycles)) == c_driver.OK
    assert cycles.value > 1000


def test_more_jobs_than_the_queue_holds(driver):
    """Places of inputs and outputs are used again only when their results are fetched."""
    order = np.arange(3 * csr.QUEUE_DEPTH - 1) % len(REGIONS)
    code, outputs = driver.run(np.ascontiguousarray(REGIONS[order]))
    assert code == c_driver.OK
    assert same_results(PROGRAM, outputs, GOLDEN[order])


def test_a_mixture_with_tasks(tmp_path, transport):
    """Its experts are chosen on the core, its gates by the register TASK."""
    graph = vision_transformer(seed=3, mixture=Mixture(experts=4, tasks=2))
    program = compile_graph(graph, ARCH)
    feed = np.random.default_rng(4).normal(size=(4, *program.input.shape)).astype(np.float32)
    task, = program.tasks
    regions, words, images = as_jobs(program, feed, {task.name: np.array([0, 1, 1, 0])})
    golden, _ = GoldenBackend(program).execute(regions, words, images)
    library = c_driver.compiled(
        c_driver.exported(program, Run(regions, tuple(words), golden), tmp_path))
    driver = CDriver(library, program, transport,
                     lambda: transport.core.state().cycle / CYCLES_PER_MS)
    assert driver.open() == c_driver.OK
    code, outputs = driver.run(regions, words)
    assert code == c_driver.OK
    assert same_results(program, outputs, golden)
    assert (golden[0] != golden[1]).any()


def test_order_of_calls(driver):
    """A queue that is full, and nothing to wait for."""
    assert driver.wait()[0] == c_driver.NO_JOB
    slots = driver._library.test_slots()
    assert slots == csr.QUEUE_DEPTH
    for _ in range(slots):
        assert driver.start(REGIONS[0]) == c_driver.OK
    assert driver.start(REGIONS[0]) == c_driver.QUEUE_FULL
    for _ in range(slots):
        code, output = driver.wait()
        assert code == c_driver.OK
        assert same_results(PROGRAM, output, GOLDEN[0])
    assert driver.wait()[0] == c_driver.NO_JOB


def test_wrong_core_no_core_no_room(driver, transport, monkeypatch):
    read = transport.read_register
    monkeypatch.setattr(transport, "read_register", lambda offset: read(offset) ^ (offset == 8))
    assert driver.open() == c_driver.WRONG_CORE
    # The places of the session before are no longer valid: no job, whatever the core would do.
    assert driver.start(REGIONS[0]) == c_driver.QUEUE_FULL
    monkeypatch.setattr(transport, "read_register", lambda _: 0xFFFF_FFFF)
    assert driver.open() == c_driver.NO_CORE
    monkeypatch.undo()
    driver._struct.memory_size = len(PROGRAM.image)
    assert driver.open() == c_driver.NO_ROOM
    transport.broken = True
    driver._struct.memory_size = transport.memory_size
    assert driver.open() == c_driver.LINK
    transport.broken = False
    assert driver.open() == c_driver.OK


def test_memory_that_holds_nothing(driver, transport, monkeypatch):
    transport._memory[:] = 0
    monkeypatch.setattr(transport, "write_memory", lambda *_: None)
    assert driver.open() == c_driver.BAD_MEMORY


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["READ", "WRITE"])
def test_bus_errors(driver, transport, kind, seed):
    chance, state = random.Random(seed), transport.core.state()
    heals(driver, transport)
    now = transport.core.state()
    count = (now.read_beats - state.read_beats if kind == "READ"
             else max(1, (now.write_beats - state.write_beats) // ARCH.burst_beats))
    transport.core.order(Misfortune[f"{kind}_ERROR"], chance.randrange(count),
                         chance.choice((Resp.SLVERR, Resp.DECERR)))
    code, _ = driver.run(REGIONS)
    assert error(code) == f"BUS_{kind}"
    assert BASE <= driver.info < BASE + transport.memory_size
    heals(driver, transport)


def test_damaged_instruction(driver, transport):
    """Its number is named; the next run uploads the program again."""
    transport._memory[BASE + 2 * INSTRUCTION_BYTES + 5] ^= 4
    code, _ = driver.run(REGIONS)
    assert (error(code), driver.info) == ("ILLEGAL_INSTRUCTION", 2)
    heals(driver, transport)


@pytest.mark.parametrize(("register", "value", "wanted"), [
    ("READ_LIMIT_LO", BASE + ALIGNMENT, "WINDOW_READ"),
    ("WRITE_LIMIT_LO", BASE, "WINDOW_WRITE"),
    ("INPUT_BASE_LO", BASE + 4, "MISALIGNED"),
])
def test_registers_that_are_wrong(driver, transport, monkeypatch, register, value, wanted):
    monkeypatch.setattr(transport, "changed", lambda name, v: value if name == register else v)
    code, _ = driver.run(REGIONS)
    assert error(code) == wanted
    if wanted == "MISALIGNED":
        assert driver.info == csr.BY_NAME[register].offset
    monkeypatch.undo()
    heals(driver, transport)


def test_cycle_limit(driver, transport):
    """The core gives a job up that takes too long."""
    assert driver.open(limit_ms=5_000, cycle_limit=1) == c_driver.OK
    transport.core.order(Misfortune.STANDSTILL, 3_000, 200_000)
    code, _ = driver.run(REGIONS)
    assert error(code) == "TIMEOUT"
    transport.core.order(Misfortune.NONE, 0, 0)
    assert driver.open() == c_driver.OK
    heals(driver, transport)


def test_standstill(driver, transport):
    """For a while it delays; for ever, the time limit ends it, and a reset names the bus."""
    transport.core.order(Misfortune.STANDSTILL, 3_000, 20_000)
    code, outputs = driver.run(REGIONS)
    assert code == c_driver.OK
    assert same_results(PROGRAM, outputs, GOLDEN)
    transport.core.order(Misfortune.STANDSTILL, 3_000, 1 << 31)
    assert driver.run(REGIONS)[0] == c_driver.TIMED_OUT
    assert error(driver.run(REGIONS)[0]) == "BUS_LOST"
    heals(driver, transport)


def test_reset_button(driver, transport):
    assert driver.start(REGIONS[0]) == c_driver.OK
    transport.core.reset()
    assert driver.wait()[0] == c_driver.JOBS_LOST
    heals(driver, transport)


def test_drivers_in_turn(driver, transport):
    """Who finds another program in memory uploads its own: the driver in Python, and this one."""
    python = CoreDriver(transport, ARCH)
    image = PROGRAM.image.copy()
    python.load(np.roll(image, 64), PROGRAM.instruction_count, PROGRAM.input_bytes,
                PROGRAM.output_bytes)
    heals(driver, transport)
    python.load(image, PROGRAM.instruction_count, PROGRAM.input_bytes, PROGRAM.output_bytes)
    assert same_results(PROGRAM, python.run(REGIONS, PROGRAM.output_bytes), GOLDEN)


def test_names(library):
    library.vitrify_error_name.restype = c_driver.ctypes.c_char_p
    for code in csr.ErrorCode:
        assert library.vitrify_error_name(code.value) == code.name.replace("NONE", "OK").encode()
    header = (DRIVER / "vitrify.h").read_text()
    for name in ("NO_CORE", "WRONG_CORE", "NO_ROOM", "BAD_MEMORY", "TIMED_OUT", "RESET_STUCK",
                 "JOBS_LOST", "QUEUE_FULL", "NO_JOB", "BAD_VALUE", "LINK", "BUSY"):
        number = getattr(c_driver, name)
        assert library.vitrify_error_name(number) == name.encode()
        assert f"#define VITRIFY_{name} ({number})" in header
    assert library.vitrify_error_name(99) == library.vitrify_error_name(-99) == b"UNKNOWN"
