"""The serial driver and a line that loses, doubles, damages and cuts; a board that is reset."""

from __future__ import annotations

import random

import pytest

from tests.support.boards import ARCH, small_program
from tests.support.execute import same_results
from vitrify.arch import link
from vitrify.arch.errors import BackendError
from vitrify.cosim.board import SimulatedBoard
from vitrify.driver import CoreDriver, LinkError
from vitrify.driver.serial_port import SerialTransport
from vitrify.program import pack_input
from vitrify.runtime import InferenceSession

pytestmark = pytest.mark.slow

PROGRAM, FEED, _ = small_program()
REGIONS = pack_input(ARCH, PROGRAM.input, FEED[PROGRAM.input.name])[:2]
DIVISOR = 4
#: Simulated seconds: a little more than the silence that ends a frame.
TIMEOUT = 1.1 * link.SILENCE_BYTES * link.WIRE_BITS * DIVISOR / (ARCH.clock_mhz * 1e6)


class HostDied(BaseException):
    """The process is gone in the middle of something."""


class Line:
    """A port whose time is the board's, and which does ``fault`` to frame number ``after``.

    ``direction`` 0: to the board, 1: from it.
    """

    def __init__(self, board, chance, after=-1, direction=0, fault=None):
        self.board, self.chance = board, chance
        self.after, self.direction, self.fault = after, direction, fault
        self.happened = False

    def clock(self):
        return self.board.cycle / (self.board.arch.clock_mhz * 1e6)

    def _through(self, data, direction):
        if self.fault is None or direction != self.direction or not data:
            return data
        self.after -= 1
        if self.after != -1:
            return data
        self.happened = True
        return self.fault(self, data)

    def write(self, data):
        self.board.put(self._through(data, 0))

    def read(self, size):
        self.board.run(400)
        got = b""
        while part := self.board.get(size):
            got += part
            self.board.run(60)  # the next byte, if there is one
        return self._through(got, 1)

    def close(self):
        pass


def lose(_line, _data):
    return b""


def double(_line, data):
    return data + data


def damage(line, data):
    at = line.chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << line.chance.randrange(8)]) + data[at + 1 :]


def truncate(line, data):
    return data[: line.chance.randrange(len(data))]


def swallow(line, data):
    at = line.chance.randrange(len(data))
    return data[:at] + data[at + 1 :]


def noise(line, data):
    at = line.chance.randrange(len(data) + 1)
    return data[:at] + line.chance.randbytes(line.chance.randint(1, 20)) + data[at:]


def die(line, data):
    line.board.put(data[: line.chance.randrange(len(data))])
    raise HostDied


def reset(line, data):
    line.board.put(data)
    line.board.run(line.chance.randrange(40 * len(data)))
    line.board.reset()
    return b""


@pytest.fixture(scope="module")
def board():
    made = SimulatedBoard(ARCH, divisor=DIVISOR)
    made.run(30_000)  # the memory's power-up
    yield made
    assert made.fault() == ""
    made.close()


@pytest.fixture(scope="module")
def golden():
    with InferenceSession(PROGRAM) as session:
        return session._backend.execute(REGIONS, [0] * len(REGIONS), len(REGIONS))[0]


def session(line):
    transport = SerialTransport(line, timeout=TIMEOUT)
    transport.wait = lambda _seconds: line.board.run(500)
    driver = CoreDriver(transport, ARCH)
    driver.load(PROGRAM.image, PROGRAM.instruction_count, PROGRAM.input_bytes,
                PROGRAM.output_bytes, 2)
    return driver


def heals(board, golden):
    driver = session(Line(board, random.Random(0)))
    assert same_results(PROGRAM, driver.run(REGIONS, PROGRAM.output_bytes), golden)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("direction", [0, 1], ids=["request", "reply"])
@pytest.mark.parametrize("fault", [lose, double, damage, truncate, swallow, noise],
                         ids=lambda f: f.__name__)
def test_bad_line(board, golden, fault, direction, seed):
    """The driver repeats what it must, nothing happens twice, and the result is right."""
    chance = random.Random(f"{fault.__name__} {direction} {seed}")
    line = Line(board, chance, chance.randrange(40), direction, fault)
    driver = session(line)
    assert same_results(PROGRAM, driver.run(REGIONS, PROGRAM.output_bytes), golden)
    assert line.happened
    assert driver.read("JOBS_DONE") == len(REGIONS)


@pytest.mark.parametrize("seed", range(8))
def test_host_dies(board, golden, seed):
    """In the middle of a frame, of an upload, of a run: the next host does not notice."""
    chance = random.Random(f"die {seed}")
    board.memory[: len(PROGRAM.image)] = 0
    with pytest.raises(HostDied):
        session(Line(board, chance, chance.randrange(45), 0, die)).run(
            REGIONS, PROGRAM.output_bytes
        )
    heals(board, golden)


@pytest.mark.parametrize("seed", range(8))
def test_reset_button(board, golden, seed):
    chance = random.Random(f"reset {seed}")
    outcome = "right"
    try:
        driver = session(Line(board, chance, chance.randrange(60), 0, reset))
        assert same_results(PROGRAM, driver.run(REGIONS, PROGRAM.output_bytes), golden)
    except BackendError as error:
        outcome = str(error)
    known = ("right", "somebody reset the board", "WINDOW_READ", "ILLEGAL_INSTRUCTION")
    assert any(words in outcome for words in known), outcome
    heals(board, golden)


def test_nothing_answers(board):
    line = Line(board, random.Random(1), 0, 0, None)
    line.write = lambda _data: None
    with pytest.raises(LinkError, match="does not answer HELLO after 3 tries; is the port right"):
        SerialTransport(line, timeout=TIMEOUT, retries=2)


def test_refused_requests_are_named(board):
    transport = SerialTransport(Line(board, random.Random(1)), timeout=TIMEOUT)
    with pytest.raises(LinkError, match="the board refused READ_MEMORY at 0x10"):
        transport._ask(link.Command.READ_MEMORY, 16, 3)
    with pytest.raises(LinkError, match="the board refused CHECKSUM at 0x0"):
        transport.checksum(0, 5)
