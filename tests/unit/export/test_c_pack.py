"""Packing and unpacking in C: NumPy's results, bit by bit, for every form of input and output."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support import c_driver
from tests.support.tools import need
from tests.unit.program.cases import ARCH, copy_program
from vitrify.export import Run
from vitrify.program import InputSpec, OutputSpec, Program, pack_input, unpack_output
from vitrify.program.preprocess import parse

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(5)
INPUTS = {
    "prefix": copy_program().input,
    "blocks": dataclasses.replace(copy_program().input, blocks=((3, 6), (0, 3))),
    "overlap": InputSpec(
        name="image", shape=(2, 7, 9), patch=(3, 4), strides=(2, 3), pads=(1, 2, 0, 1), prefix=2,
        rows=2 + 3 * 3, multiplier=np.array([40.3, 19.77]), offset=np.array([0.5, -7.25]),
        preprocess="mean=0.2:0.6,std=0.25:0.5",
    ),
    "floats only": dataclasses.replace(copy_program().input, preprocess=None),
}


def outputs(depth: int) -> tuple[OutputSpec, ...]:
    """Wide and narrow, one factor and many, views, every type; one behind the other."""
    many = RNG.normal(0, 0.01, (3, 12))
    specs, at = [], 0
    for values in (
        {"rows": 9, "channels": 12, "shape": (9, 12), "bits": 8, "scale": 0.5, "zero_point": -3},
        {"rows": 9, "channels": 12, "shape": (9, 12), "scale": many[0], "factor": many[1],
         "shift": many[2]},
        {"rows": 9, "channels": 12, "shape": (4, 6), "scale": 0.37, "start": 106,
         "steps": (-24, -2), "dtype": "int8"},
        {"rows": 9, "channels": 12, "shape": (3, 6, 6), "scale": 0.3, "grid": (3, 3, 2, 3, 2),
         "steps": (4, 36, 2, 12, 1)},
        {"rows": 9, "channels": 12, "shape": (9, 12), "scale": 0.5, "dtype": "int64"},
        {"rows": 1, "channels": 10, "shape": (10,), "scale": 1 / 3, "dtype": "float64"},
        {"rows": 1, "channels": 10, "shape": (10,), "scale": 1 / 3, "dtype": "float16"},
        {"rows": 1, "channels": 1, "shape": (), "scale": 0.5, "shift": 0.1, "dtype": "uint16"},
    ):
        out = OutputSpec(name=f"out {at}\\\"?ü", offset=at, **values)
        specs.append(out)
        at += out.size(depth)
    return tuple(specs)


def library(folder, program: Program, compiler="gcc"):
    empty = np.zeros((1, program.input_bytes), np.uint8)
    run = Run(empty, (0,), np.zeros((1, program.output_bytes), np.uint8))
    return c_driver.compiled(c_driver.exported(program, run, folder), compiler=compiler)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(tmp_path, name):
    spec = INPUTS[name]
    outs = (OutputSpec(name="y", rows=1, channels=1, bits=8, scale=1.0, shape=(1,)),)
    program = copy_program(input=spec, batch=2, outputs=outs)
    loaded = library(tmp_path, program)
    c, h, w = spec.shape
    pixels = RNG.integers(0, 256, (2, c, h, w)).astype(np.uint8)
    values = RNG.normal(0, 2, (2, c, h, w)).astype(np.float32)
    # Halves, in both directions, and what saturates.
    values[0, 0, 0, :4] = (np.array([0.5, 1.5, -2.5, 1e6]) - spec.offset[0]) / spec.multiplier[0]
    wanted = pack_input(ARCH, spec, values).reshape(-1)
    got = np.zeros(program.input_bytes, np.uint8)
    for i, image in enumerate(values):
        assert loaded.test_pack_floats(c_driver.pointer(image), i, c_driver.pointer(got)) == 0
    assert (got == wanted).all()
    if spec.preprocess is None:
        assert loaded.test_pack_pixels(
            c_driver.pointer(pixels), 0, 0, c_driver.pointer(got)) == c_driver.BAD_VALUE
        return
    wanted = pack_input(ARCH, spec, pixels).reshape(-1)
    assert (pack_input(ARCH, spec, parse(spec.preprocess).normalise(pixels)).reshape(-1)
            == wanted).all()
    for order, images in enumerate((pixels, pixels.transpose(0, 2, 3, 1).copy())):
        got[:] = 0
        for i, image in enumerate(images):
            assert loaded.test_pack_pixels(
                c_driver.pointer(image), order, i, c_driver.pointer(got)) == 0
        assert (got == wanted).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(tmp_path_factory, value):
    folder = tmp_path_factory.getbasetemp() / "none"
    loaded = library(folder, copy_program())
    image = np.zeros((3, 4, 8), np.float32)
    image[2, 3, 7] = value
    region = np.zeros(copy_program().input_bytes, np.uint8)
    assert loaded.test_pack_floats(
        c_driver.pointer(image), 0, c_driver.pointer(region)) == c_driver.BAD_VALUE


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_outputs(tmp_path, compiler):
    need(compiler, compiler)
    program = copy_program(outputs=outputs(ARCH.depth), batch=2)
    loaded = library(tmp_path, program, compiler)
    region = RNG.integers(0, 256, program.output_bytes).astype(np.uint8)
    for number, out in enumerate(program.outputs):
        if out.dtype == "float16":  # C has none: its numbers come as float32
            out = dataclasses.replace(out, dtype="float32")
        wanted = unpack_output(ARCH, out, region.reshape(2, -1))
        for index in range(2):
            flat = wanted[index].reshape(-1)
            values = [loaded.test_value(number, c_driver.pointer(region), index, i)
                      for i in range(flat.size)]
            assert values == flat.tolist()
            got = np.zeros(flat.size, np.float32)
            loaded.test_unpack(number, c_driver.pointer(region), index, c_driver.pointer(got))
            assert (got == flat.astype(np.float32)).all()
