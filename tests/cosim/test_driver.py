"""The driver over AXI: our own model on the nano core, ten pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.calibration import digits_calibration
from models.datasets import digits
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.cosim.runner import simulate
from vitrify.program import pack_input, preprocess
from vitrify.program.container import save
from vitrify.rtl.wrapper import Wrapper
from vitrify.runtime import InferenceSession

ROOT = Path(__file__).resolve().parents[2]
ARCH = preset("nano")
IMAGES = 10
pytestmark = pytest.mark.slow


def test_driver(tmp_path):
    spec = preprocess.parse("mean=0.305,std=0.376")

    def pixels(images):
        return spec.normalise(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    program = compile_model(ROOT / "models/digits_vit/model.onnx", ARCH,
                            pixels(digits_calibration()))
    save(program, tmp_path / "digits.vfy")
    feed = pixels(digits("test").image[:IMAGES])
    regions = pack_input(ARCH, program.input, feed)
    golden, _ = InferenceSession(program)._backend.execute(regions, [0] * IMAGES, IMAGES)
    np.savez(tmp_path / "jobs.npz", regions=regions, golden=golden)
    # The same simulator as that of the whole core's tests.
    simulate(Wrapper(ARCH, trace=True), "core-nano", ROOT / "tests/cosim/benches/driver_bench.py",
             arch=ARCH, options={"program": str(tmp_path / "digits.vfy"),
                                 "jobs": str(tmp_path / "jobs.npz")})
