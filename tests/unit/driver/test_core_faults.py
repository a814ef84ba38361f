"""The driver and a core to which bad things happen: named errors, no wrong results, recovery."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.boards import small_program
from tests.support.execute import same_results
from vitrify.arch.csr import BY_NAME, ErrorCode
from vitrify.arch.errors import BackendError
from vitrify.arch.isa import INSTRUCTION_BYTES
from vitrify.arch.memmap import ALIGNMENT
from vitrify.arch.presets import preset
from vitrify.cosim.core import Misfortune
from vitrify.cosim.transport import SimulatedTransport
from vitrify.driver import CoreDriver, CoreError
from vitrify.program import pack_input
from vitrify.rtl.bus.axi import Resp
from vitrify.runtime import InferenceSession

pytestmark = pytest.mark.slow

ARCH = preset("nano")
PROGRAM, FEED, _ = small_program(ARCH)
REGIONS = pack_input(ARCH, PROGRAM.input, FEED[PROGRAM.input.name])
SEEDS = range(20)
#: Where the driver puts the buffer.
BASE = 3 * ALIGNMENT
#: Half a second of patience outlasts a reset that gives the memory up, after 65,536 cycles.
CYCLES_PER_SECOND = 200_000


class HostDied(BaseException):
    """The process is gone in the middle of something."""


class Transport(SimulatedTransport):
    """Calls ``event`` before the operation number ``after``; its memory begins at ``BASE``."""

    memory_base = BASE
    after, event = -1, None

    def _step(self):
        if self.after == 0:
            self.after = -1
            self.event()
        self.after -= self.after > 0

    def read_register(self, offset):
        self._step()
        return super().read_register(offset)

    def write_register(self, offset, value):
        self._step()
        super().write_register(offset, value)

    def read_memory(self, offset, size):
        self._step()
        return super().read_memory(BASE + offset, size)

    def write_memory(self, offset, data):
        self._step()
        super().write_memory(BASE + offset, data)

    def wait(self, seconds):
        # Random lengths, so that events come at any cycle.
        self.core.run(random.randint(50, 2_000))
        assert not self.core.fault()


@pytest.fixture(scope="module")
def transport():
    made = Transport(ARCH, memory=1 << 20)
    made.memory_size -= BASE
    yield made
    made.close()


@pytest.fixture(scope="module")
def golden():
    with InferenceSession(PROGRAM) as session:
        backend = session._backend
        return backend.execute(REGIONS, [0] * len(REGIONS), len(REGIONS))[0]


@pytest.fixture(autouse=True)
def simulated_seconds(transport, monkeypatch):
    """The driver's patience is counted in cycles: it does not depend on the machine's load."""
    core = transport.core
    clock = SimpleNamespace(monotonic=lambda: core.state().cycle / CYCLES_PER_SECOND)
    monkeypatch.setattr("vitrify.driver.core.time", clock)


def loaded(transport):
    driver = CoreDriver(transport, ARCH, patience=2.0)
    driver.load(PROGRAM.image, PROGRAM.instruction_count, PROGRAM.input_bytes,
                PROGRAM.output_bytes, 2)
    return driver


def run(driver, golden):
    """Results that are right; nothing outside the windows was touched."""
    core, place = driver._transport.core, driver._loaded
    try:
        got = driver.run(REGIONS, PROGRAM.output_bytes)
        assert same_results(PROGRAM, got, golden)
    finally:
        read, written = core.extent()
        assert not len(read) or (read[0] >= BASE and read[-1] < BASE + place.end)
        assert not len(written) or (
            written[0] >= BASE + place.outputs and written[-1] < BASE + place.end
        )


def heals(transport, driver, golden):
    """The next run is right, with the same driver and with a new one."""
    transport.core.order(Misfortune.NONE, 0, 0)
    transport.after = -1
    run(driver, golden)
    run(loaded(transport), golden)


@pytest.fixture
def chance(request):
    seed = f"{request.node.name}"
    random.seed(seed)
    return random.Random(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_read_errors(transport, golden, chance, seed):
    """SLVERR or DECERR on any beat: its address is named."""
    driver = loaded(transport)
    core = transport.core
    before = core.state().read_beats
    run(driver, golden)
    beats = core.state().read_beats - before
    core.order(Misfortune.READ_ERROR, chance.randrange(beats),
               chance.choice((Resp.SLVERR, Resp.DECERR)))
    with pytest.raises(CoreError, match=r"BUS_READ, address 0x") as caught:
        run(driver, golden)
    assert core.happened
    assert caught.value.code == ErrorCode.BUS_READ
    assert BASE <= caught.value.info < BASE + driver._loaded.end
    heals(transport, driver, golden)


@pytest.mark.parametrize("seed", SEEDS)
def test_write_errors(transport, golden, chance, seed):
    driver = loaded(transport)
    core = transport.core
    before = core.state().write_beats
    run(driver, golden)
    beats = core.state().write_beats - before
    bursts = max(1, beats // ARCH.burst_beats)
    core.order(Misfortune.WRITE_ERROR, chance.randrange(bursts),
               chance.choice((Resp.SLVERR, Resp.DECERR)))
    with pytest.raises(CoreError, match=r"BUS_WRITE, address 0x") as caught:
        run(driver, golden)
    place = driver._loaded
    assert BASE + place.outputs <= caught.value.info < BASE + place.end
    heals(transport, driver, golden)


@pytest.mark.parametrize("seed", SEEDS)
def test_standstill(transport, golden, chance, seed):
    """A memory that does nothing for thousands of cycles delays, and no more."""
    driver = loaded(transport)
    transport.core.order(Misfortune.STANDSTILL, chance.randrange(10_000),
                         chance.randrange(1_000, 30_000))
    run(driver, golden)
    heals(transport, driver, golden)


def test_standstill_for_ever(transport, golden):
    """A memory that never answers is named; the board's reset helps."""
    driver = loaded(transport)
    driver._patience = 0.5
    transport.core.order(Misfortune.STANDSTILL, 3_000, 1 << 31)
    with pytest.raises(BackendError, match=r"has done nothing for 0\.5 s; STATUS 0x"):
        run(driver, golden)
    with pytest.raises(BackendError, match="memory does not answer"):
        run(driver, golden)
    heals(transport, driver, golden)


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_instruction(transport, golden, chance, seed):
    """One or two wrong bits, or a blank, in any instruction: its number and address are named."""
    driver = loaded(transport)
    number = chance.randrange(PROGRAM.instruction_count)
    at = BASE + number * INSTRUCTION_BYTES
    word = transport._memory[at : at + INSTRUCTION_BYTES]
    if chance.random() < 0.2:
        word[:] = 0
    else:
        for bit in chance.sample(range(8 * INSTRUCTION_BYTES), chance.choice((1, 2))):
            word[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CoreError, match=rf"ILLEGAL_INSTRUCTION, instruction {number} at address "
                                        rf"0x{at:x}$"):
        run(driver, golden)
    heals(transport, driver, golden)


@pytest.mark.parametrize("seed", SEEDS)
def test_outside_the_windows(transport, golden, chance, seed):
    """Windows that are too small for the program: nothing outside them reaches the bus."""
    driver = loaded(transport)
    place, pages = driver._loaded, driver._loaded.end // ALIGNMENT
    first_output = place.outputs // ALIGNMENT
    kind = chance.choice(("READ", "WRITE"))
    if kind == "READ":
        low, high = sorted((chance.randrange(pages + 1), chance.randrange(pages + 1)))
        if high >= pages - 1 and low == 0:
            high = 1
    else:
        low, high = chance.choice(((first_output + 1, pages), (0, first_output), (0, 0)))
    prepare = driver._prepare

    def narrow(place):
        prepare(place)
        driver.write_wide(f"{kind}_BASE", BASE + low * ALIGNMENT)
        driver.write_wide(f"{kind}_LIMIT", BASE + high * ALIGNMENT)

    driver._prepare = narrow
    transport.core.extent()
    with pytest.raises(CoreError, match=f"WINDOW_{kind}, address 0x") as caught:
        driver.run(REGIONS, PROGRAM.output_bytes)
    window = range(BASE + low * ALIGNMENT, BASE + high * ALIGNMENT)
    assert caught.value.info not in window
    touched = transport.core.extent()[kind == "WRITE"]
    assert not len(touched) or (touched[0] in window and touched[-1] in window)
    driver._prepare = prepare
    heals(transport, driver, golden)


@pytest.mark.parametrize("seed", SEEDS)
def test_reset_button(transport, golden, chance, seed):
    """Reset between any two operations: an error that says so, or right results."""
    driver = loaded(transport)
    transport.after, transport.event = chance.randrange(150), transport.core.reset
    outcome = ""
    try:
        run(driver, golden)
    except BackendError as error:
        outcome = str(error)
    # A job that was pushed after the reset found the windows closed, or no program.
    known = ("somebody reset the board", "WINDOW_READ", "ILLEGAL_INSTRUCTION, instruction 0 ")
    assert any(words in outcome for words in known) or not outcome
    heals(transport, driver, golden)


@pytest.mark.parametrize("seed", SEEDS)
def test_host_dies(transport, golden, chance, seed):
    """A host that is gone in the middle of upload or run leaves nothing that hurts the next."""

    def die():
        raise HostDied

    fresh = np.arange(len(PROGRAM.image), dtype=np.uint8)
    transport._memory[BASE : BASE + len(fresh)] = fresh
    transport.after, transport.event = chance.randrange(200), die
    try:
        run(loaded(transport), golden)
    except HostDied:
        transport.core.run(chance.randrange(3_000))
    transport.after = -1  # a run may take fewer operations than that
    transport.core.extent()
    heals(transport, loaded(transport), golden)


def test_registers_of_the_fault_are_those_of_the_contract():
    assert BY_NAME["ERROR_INFO_HI"].offset == BY_NAME["ERROR_INFO_LO"].offset + 4
