"""Applications in parts give golden's numbers in RTL, on a board, and where NumPy is all there is.

The parts: two programs, and a norm between them that NumPy computes.  The core has a 16-bit memory,
as the simulated board has.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.boards import ARCH
from tests.support.no_image import tokens, two_images, words
from tests.support.numpy_alone import with_numpy_alone
from tests.support.parts import IMAGES, compiled, places
from tests.support.tails import BLOCK, with_before
from vitrify.compiler import compile_application, partition
from vitrify.cosim.board import SimulatedBoard
from vitrify.cosim.pty import serve
from vitrify.program import Application
from vitrify.runtime import InferenceSession

pytestmark = pytest.mark.slow

FEED = {"image": IMAGES[:1]}


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """Two programs with a part of the host between them."""
    with pytest.MonkeyPatch.context() as patch:
        # so small a rest would not be worth a transfer
        patch.setattr(partition, "HOST_MACS", 1.0)
        application, _ = compiled(
            with_before(["LpNormalization"], BLOCK), tmp_path_factory.mktemp("parts"), ARCH
        )
    assert places(application) == "chc"
    return application


@pytest.fixture(scope="module")
def golden(in_turn: Application) -> np.ndarray:
    """Its result."""
    (found,) = InferenceSession(in_turn).run(None, FEED)
    assert found.std() > 0
    return found


def test_rtl(in_turn: Application, golden: np.ndarray) -> None:
    with InferenceSession(in_turn, "rtl", check=True) as session:
        np.testing.assert_array_equal(session.run(None, FEED)[0], golden)
        assert session.statistics is not None
        assert session.statistics.cycles > 0
        assert session.statistics.host_seconds > 0


def test_a_simulated_board(in_turn: Application, golden: np.ndarray) -> None:
    """Its programs are uploaded in turn, in every run."""
    board = SimulatedBoard(ARCH)
    try:
        with serve(board) as port, InferenceSession(
            in_turn, f"board:ulx3s?port={port}"
        ) as session:
            for _ in range(2):
                np.testing.assert_array_equal(session.run(None, FEED)[0], golden)
    finally:
        board.close()


def test_numpy_alone(in_turn: Application, golden: np.ndarray, tmp_path: Path) -> None:
    assert with_numpy_alone(in_turn, FEED, tmp_path) == str(golden.ravel().tolist())


@pytest.mark.parametrize("make", [tokens, words, two_images])
def test_inputs_that_are_no_single_image(make, tmp_path: Path) -> None:
    path, feed = make(tmp_path)
    application = compile_application(path, ARCH, feed, warn=lambda _: None)
    assert isinstance(application, Application)
    few = {name: array[:2] for name, array in feed.items()}
    (wanted,) = InferenceSession(application).run(None, few)
    with InferenceSession(application, "rtl", check=True) as session:
        np.testing.assert_array_equal(session.run(None, few)[0], wanted)
    assert wanted.std() > 0
