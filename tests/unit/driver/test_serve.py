"""Our own model on a simulated board, by the commands that a board's owner types."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from models.calibration import digits_calibration
from models.datasets import digits
from tests.support.boards import ARCH
from vitrify.cli.main import main

pytestmark = pytest.mark.slow

MODEL = Path(__file__).resolve().parents[3] / "models/digits_vit/model.onnx"
IMAGES = 10


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The architecture as a file."""
    path = tmp_path_factory.mktemp("core") / "core.yaml"
    values = ARCH.to_dict()
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture(scope="module")
def port(core):
    with serve(core, signal.SIGINT) as name:
        yield name


@contextmanager
def serve(core, end):
    """``vitrify serve``'s port; it ends without a complaint by the signal ``end``."""
    with subprocess.Popen(
        [sys.executable, "-m", "vitrify.cli", "serve", "--arch", core, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # As a shell starts what it leaves in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            text += line
        yield json.loads(text)["port"]
        process.send_signal(end)
        try:
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
        assert process.stderr.read().strip().endswith("vitrify: interrupted")


def test_a_supervisor_ends_it(core, port):
    with serve(core, signal.SIGTERM) as name:
        assert name != port


def test_digits_on_the_board(core, port, tmp_path):
    """Equal to golden in every bit, and right."""
    pictures = digits("test")
    np.save(tmp_path / "calib.npy", digits_calibration())
    np.save(tmp_path / "x.npy", pictures.image[:IMAGES])
    program = str(tmp_path / "digits.vfy")
    assert main(["compile", str(MODEL), "--arch", core, "--calib", str(tmp_path / "calib.npy"),
                 "--preprocess", "mean=0.305,std=0.376", "-o", program]) == 0
    logits = {}
    for backend in ("golden", f"board:ulx3s?port={port}"):
        out = tmp_path / f"{len(logits)}.npz"
        assert main(["run", program, "--input", str(tmp_path / "x.npy"), "--backend", backend,
                     "-o", str(out)]) == 0
        logits[backend], = np.load(out).values()
    golden, board = logits.values()
    assert golden.shape == (IMAGES, 10)
    assert (board == golden).all()
    assert (golden.argmax(1) == pictures.label[:IMAGES]).mean() > 0.8
