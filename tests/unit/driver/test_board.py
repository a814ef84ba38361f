"""The backend ``board``: the driver over a simulated core and over a board's serial port."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.boards import ARCH, small_program
from vitrify.arch.errors import BackendError, ConfigError, InputError
from vitrify.arch.presets import preset
from vitrify.cosim.board import SimulatedBoard
from vitrify.cosim.pty import serve
from vitrify.driver import CoreDriver
from vitrify.driver.serial_port import SerialTransport, open_port
from vitrify.runtime import InferenceSession

pytestmark = pytest.mark.slow

PROGRAM, FEED, GOLDEN = small_program()


@pytest.fixture(scope="module")
def port():
    board = SimulatedBoard(ARCH)
    with serve(board) as name:
        yield name
    board.close()


def test_simulated_core():
    with InferenceSession(PROGRAM, "board:simulation") as session:
        results = session.run(None, FEED)
        assert (results[0] == GOLDEN).all()
        stats = session.statistics.to_dict()
    assert stats["dram_read_bytes"] + stats["dram_write_bytes"] == 3 * PROGRAM.dram_bytes
    assert stats["cycles"] > stats["roofline_cycles"]


def test_serial_board(port):
    """More jobs than the queue holds; the program is uploaded once, also by a second session."""
    name = PROGRAM.input.name
    many = {name: np.concatenate([FEED[name]] * 4)}
    with InferenceSession(PROGRAM, f"board:ulx3s?port={port}") as session:
        driver = session._backend.driver
        for _ in range(2):
            assert (session.run(None, many)[0] == np.concatenate([GOLDEN] * 4)).all()
            assert driver.uploaded in (0, len(PROGRAM.image))
        assert session.statistics.to_dict()["dram_read_bytes"] > 0
    with InferenceSession(PROGRAM, f"board:ulx3s?port={port}") as session:
        assert (session.run(None, FEED)[0] == GOLDEN).all()
        assert session._backend.driver.uploaded == 0


def test_upload_goes_on_where_it_stopped(port):
    """What is in memory already does not go over the line again."""
    image = np.random.default_rng(3).integers(0, 256, 5 << 14).astype(np.uint8)
    transport = SerialTransport(open_port(port))
    transport.write_memory(0, image[: 3 << 14])  # and then the host died
    driver = CoreDriver(transport, ARCH)
    driver.load(image, 1, 64, 64)
    assert driver.uploaded == 2 << 14
    assert (transport.read_memory(0, len(image)) == image).all()
    transport.close()


def test_another_core_is_refused(port):
    other = dataclasses.replace(ARCH, stat_rows=2 * ARCH.stat_rows)
    with pytest.raises(BackendError, match=rf"hash {ARCH.hash:08x}.*{other.hash:08x}"):
        InferenceSession(dataclasses.replace(PROGRAM, arch=other), f"board:ulx3s?port={port}")


@pytest.mark.parametrize(("device", "match"), [
    ("board", "no board is called ''; the boards are ulx3s"),
    ("board:toaster", "no board is called 'toaster'"),
    ("board:ulx3s", "board:ulx3s needs port="),
    ("board:ulx3s?port=", "needs port="),
    ("board:ulx3s?speed=3", "no option 'speed'; it has port, baud, timeout"),
    ("board:ulx3s?port=/dev/nothing-here", "cannot open the serial port '/dev/nothing-here'"),
    ("board:ulx3s?port=/dev/null&baud=fast", "invalid literal"),
    ("board:ulx3s?port", "not of the form OPTION=VALUE"),
    ("board:pynq?bitfile=/nothing.bit", "no bitstream '/nothing.bit'"),
    ("board:uio?buffer=none-such", "cannot read .*none-such"),
    ("rtl:fast", "no backend is called 'rtl:fast'"),
])
def test_wrong_devices(device, match):
    with pytest.raises(InputError, match=match):
        InferenceSession(PROGRAM, device)


def test_wide_bus_is_refused():
    with pytest.raises(ConfigError, match="needs bus_bytes 2, not 4"):
        SimulatedBoard(preset("nano"))
