"""Images to DRAM bytes and back, against loops that follow the documented layout."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.program.cases import ARCH, copy_program
from vitrify.arch.errors import InputError
from vitrify.golden.machine import Machine
from vitrify.program import (
    as_batch,
    from_words,
    pack_input,
    quantise,
    to_words,
    unpack_output,
)
from vitrify.program.preprocess import format as format_spec
from vitrify.program.preprocess import parse

SPEC = copy_program().input


def pixels(n=2, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 8)).astype(np.uint8)


@given(
    st.integers(1, 9),
    st.integers(1, 40),
    st.sampled_from([4, 8, 32]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_words_follow_the_layout(rows, channels, depth, wide, seed):
    kind = np.int16 if wide else np.int8
    info = np.iinfo(kind)
    q = np.random.default_rng(seed).integers(info.min, info.max + 1, (rows, channels)).astype(kind)
    data = to_words(q, depth)
    expected = []
    for w in range(-(-channels // depth)):
        for r in range(rows):
            word = [int(v) for v in q[r, w * depth : (w + 1) * depth]]
            word += [0] * (depth - len(word))
            expected += [v & 255 for v in word]
            if wide:
                expected += [v >> 8 & 255 for v in word]
    assert data.tolist() == expected
    assert (from_words(data, rows, channels, 8 * q.itemsize, depth) == q).all()


def test_quantise_patches_by_hand():
    batch = as_batch(SPEC, pixels())
    q = quantise(SPEC, batch)
    assert q.shape == (2, 9, 12)
    assert (q[:, 0] == 0).all()
    for row in range(8):
        py, px = divmod(row, 4)
        for column in range(12):
            c, rest = divmod(column, 4)
            y, x = 2 * py + rest // 2, 2 * px + rest % 2
            value = float(batch[1, c, y, x]) * SPEC.multiplier[c] + SPEC.offset[c]
            assert q[1, row + 1, column] == max(-128, min(127, round(value)))


def test_pixels_with_the_right_factors_are_exact():
    p = np.arange(96, dtype=np.uint8).reshape(1, 3, 4, 8)
    spec = dataclasses.replace(SPEC, multiplier=np.full(3, 127.5), offset=np.full(3, -0.5))
    q = quantise(spec, as_batch(spec, p))
    assert sorted(q[0, 1:].ravel().tolist()) == list(range(-128, -32))


def test_uint8_layouts_and_floats_agree():
    p = pixels()
    floats = (p / 255 - 0.5) / 0.5
    expected = pack_input(ARCH, SPEC, p)
    assert (pack_input(ARCH, SPEC, p.transpose(0, 2, 3, 1)) == expected).all()
    assert (pack_input(ARCH, SPEC, floats.astype(np.float32)) == expected).all()
    assert (pack_input(ARCH, SPEC, floats) == expected).all()


def test_blocks_follow_each_other():
    spec = dataclasses.replace(SPEC, blocks=((0, 4), (4, 5)))
    whole = quantise(spec, as_batch(spec, pixels(1)))[0]
    expected = np.concatenate([to_words(whole[:4], 8), to_words(whole[4:], 8)])
    assert (pack_input(ARCH, spec, pixels(1))[0] == expected).all()


def test_golden_machine_carries_rows_through():
    program = copy_program()
    regions = pack_input(ARCH, program.input, pixels())
    out = np.stack([Machine(ARCH).run(program.image, 3, r, program.output_bytes) for r in regions])
    y = unpack_output(ARCH, program.outputs[0], out)
    assert y.dtype == np.float32
    assert (y == (quantise(SPEC, as_batch(SPEC, pixels())) - 2.0) * 0.5).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 8), np.float32), r"shape \[3, 4, 8\]; the model takes \[N, 3, 4, 8\]"),
        (np.zeros((1, 3, 8, 4), np.float32), r"\[1, 3, 8, 4\]"),
        (np.zeros((1, 4, 8, 3), np.float32), r"\[1, 4, 8, 3\]"),
        (np.zeros((0, 3, 4, 8), np.float32), "no image"),
        (np.full((1, 3, 4, 8), np.nan, np.float32), "not finite"),
        (np.zeros((1, 3, 4, 8), np.int64), "must be float or uint8, not int64"),
        (np.array(["a"]), "must be float or uint8"),
    ],
)
def test_wrong_inputs(array, message):
    with pytest.raises(InputError, match=message):
        pack_input(ARCH, SPEC, array)


def test_pixels_need_a_specification():
    with pytest.raises(InputError, match="give --preprocess"):
        pack_input(ARCH, dataclasses.replace(SPEC, preprocess=None), pixels())


def test_preprocess_specifications():
    spec = parse("crop_pct=0.9,mean=0.5,std=0.25")
    assert parse("imagenet").mean == (0.485, 0.456, 0.406)
    assert parse("mean=0.1:0.2:0.3").mean == (0.1, 0.2, 0.3)
    assert parse(format_spec(spec)) == spec
    p = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3)
    assert np.allclose(spec.normalise(p), [[[-2, -1.2, 2]]])
    assert parse("none").normalise(p).ravel().tolist() == [0, 51, 255]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zoom=2", "'zoom=2' is not known"),
        ("imgnet", "'imgnet' is not known"),
        ("mean=grey", "mean='grey' is not a number"),
        ("std=0", "must be at least"),
        ("crop_pct=1.5", "from 0.1 to 1"),
        ("crop_pct=0.5:0.6", "must be one number"),
        ("interpolation=sinc", "not one of bicubic"),
    ],
)
def test_wrong_specifications(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


def test_wrong_number_of_channels():
    with pytest.raises(InputError, match="2 values for 3 channels"):
        parse("mean=0.5:0.5").normalise(pixels())
