"""The comparison with golden finds every kind of difference and says where it is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.synthetic import vision_transformer
from vitrify.arch.isa import Output
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.cosim.check import Checker, MismatchError
from vitrify.program import pack_input

ARCH = preset("nano")
IMAGES = 2


@pytest.fixture(scope="module")
def case():
    """A program, its input regions, and the records and outputs that a perfect core would give."""
    graph = vision_transformer(seed=3, blocks=1)
    program = compile_graph(graph, ARCH)
    images = np.random.default_rng(5).normal(size=(IMAGES, *graph.input.shape))
    regions = pack_input(ARCH, program.input, images.astype(np.float32))
    checker = Checker(program, regions)
    parts = [
        perfect(expected, image * len(program.layers) + i)
        for image in range(IMAGES)
        for i, expected in enumerate(checker._golden(image))
    ]
    records = np.concatenate(parts)
    records["cycle"] = 1000 + np.arange(len(records))
    return program, regions, records, np.stack(checker._outputs)


def perfect(expected, matmul):
    """Records of one MATMUL, a lane group at a time."""
    rows, columns = expected.values.shape
    lanes, depth = ARCH.lanes, ARCH.depth
    record = np.dtype(
        [
            ("cycle", "<u8"),
            ("matmul", "<u4"),
            ("address", "<u4"),
            ("wide", "u1"),
            ("pad", "V7"),
            ("mask", "u1", 16),
            ("low", "u1", depth),
            ("high", "u1", depth),
        ],
        align=True,
    )
    groups = -(-columns // lanes)
    padded = np.zeros((rows, groups * lanes), np.int64)
    padded[:, :columns] = expected.values
    out = np.zeros(rows * groups, record)
    wide = expected.instruction.output != Output.INT8
    for n in range(rows * groups):
        group, r = divmod(n, rows)
        at = group * lanes % depth
        out[n]["matmul"] = matmul
        out[n]["address"] = expected.addresses[r, group * lanes // depth]
        out[n]["wide"] = wide
        out[n]["mask"][0] = 1 << at // lanes
        values = padded[r, group * lanes : (group + 1) * lanes]
        out[n]["low"][at : at + lanes] = values & 255
        if wide:
            out[n]["high"][at : at + lanes] = values >> 8 & 255
    return out


def check(case, records, step=97, outputs=None):
    program, regions, _, right = case
    checker = Checker(program, regions)
    for at in range(0, len(records), step):
        checker.feed(records[at : at + step])
    checker.close(right if outputs is None else outputs)
    return checker.compared


def test_outputs_are_compared_too(case):
    program, _, records, right = case
    wrong = right.copy()
    (spec,) = program.outputs
    wrong[1, spec.offset] ^= 1
    with pytest.raises(MismatchError, match=r"image 1: .* output 'logits' in memory .* value 0 is"):
        check(case, records, outputs=wrong)
    # Ten channels are a word and a quarter: nobody reads the rest.
    wrong = right.copy()
    wrong[0, spec.offset + 3 * ARCH.depth - 1] ^= 1
    assert check(case, records, outputs=wrong)


def test_equal_tensors_pass(case):
    program, _, records, _ = case
    assert check(case, records) == IMAGES * len(program.layers)
    assert check(case, records, step=10**9) == IMAGES * len(program.layers)


@pytest.mark.parametrize("seed", range(8))
def test_any_wrong_bit_is_found(case, seed):
    program, _, records, _ = case
    rng = np.random.default_rng(seed)
    wrong = records.copy()
    n = int(rng.integers(len(wrong)))
    group = int(wrong[n]["mask"][0]).bit_length() - 1
    plane = "high" if wrong[n]["wide"] and seed % 2 else "low"
    lane = group * ARCH.lanes
    wrong[n][plane][lane] ^= 1 << int(rng.integers(8))
    layer = program.layers[int(wrong[n]["matmul"]) % len(program.layers)]
    image = int(wrong[n]["matmul"]) // len(program.layers)
    with pytest.raises(MismatchError) as error:
        check(case, wrong)
    text = str(error.value)
    assert f"image {image}, layer '{layer.name}'" in text
    assert f"tensor '{layer.tensor.name}' differs" in text
    assert f"written in cycle {1000 + n}; 1 of" in text


def test_the_earliest_difference_is_named(case):
    wrong = case[2].copy()
    for n in (40, 50):
        wrong[n]["low"] ^= 0x55
    with pytest.raises(MismatchError, match=r"written in cycle 1040; 4 of"):
        check(case, wrong)


def test_a_missing_write_is_found(case):
    records = case[2]
    with pytest.raises(MismatchError, match=r"row \d+, channel \d+ .* was never written"):
        check(case, np.delete(records, 10))


def test_a_missing_tensor_is_found(case):
    program, _, records, _ = case
    with pytest.raises(MismatchError, match=r"wrote nothing for MATMUL 3 "):
        check(case, records[records["matmul"] != 3])
    last = IMAGES * len(program.layers) - 1
    with pytest.raises(MismatchError, match=f"wrote {last} tensors where golden has {last + 1}"):
        check(case, records[records["matmul"] != last])


def test_a_write_elsewhere_is_found(case):
    wrong = case[2].copy()
    wrong[5]["address"] = ARCH.token_words - 1
    with pytest.raises(MismatchError, match=r"cycle 1005 writes int16 word \d+, which is no part"):
        check(case, wrong)
    wrong = case[2].copy()
    wrong[5]["wide"] ^= 1
    with pytest.raises(MismatchError, match="cycle 1005 writes int8 word"):
        check(case, wrong)


def test_surplus_writes_are_found(case):
    program, _, records, _ = case
    surplus = records[-1:].copy()
    surplus["matmul"] += 1
    with pytest.raises(MismatchError, match="wrote more than"):
        check(case, np.concatenate([records, surplus]))
    assert program.layers
