import numpy as np
import pytest

from vitrify.arch import formats
from vitrify.arch.errors import ModelError
from vitrify.golden.ops import requantise
from vitrify.golden.ops.matmul import matmul
from vitrify.quant.requant import columns, finest, shifts, single
from vitrify.quant.rounding import GRIDS, Moments, nearest

SEED = 11


def rng():
    print(f"seed {SEED}")
    return np.random.default_rng(SEED)


def scaled(acc, requant, bits):
    return requantise.scale(
        acc,
        bias=requant.bias,
        pre_shift=requant.pre_shift,
        multiplier=requant.multiplier,
        post_shift=requant.post_shift,
        requant_bits=bits,
    )


@pytest.mark.parametrize("bits", [16, 18, 24, 27])
@pytest.mark.parametrize("zero_point", [0, -90])
@pytest.mark.parametrize("reach", [127, 32767])
def test_columns_reproduce_the_real_product(bits, zero_point, reach):
    generator = rng()
    x = generator.integers(-127, 128, (400, 96))
    # Rows of very different size, one of them zero.
    weight = generator.normal(size=(12, 96)) * np.geomspace(1, 60, 12)[:, None] * 1e-3
    weight[3] = 0
    bias = generator.normal(size=12) * np.geomspace(1, 60, 12) * 1e-2
    real = (x - zero_point) @ weight.T + bias
    step = np.abs(real).max() / reach * 1.01
    part = columns(
        weight,
        bias,
        step,
        moments=Moments(x - zero_point),
        reach=reach,
        requant_bits=bits,
        what="layer",
        zero_point=zero_point,
    )
    assert part.requant.post_shift in formats.POST_SHIFTS
    assert np.abs(part.weight).max() <= 127
    assert np.abs(part.requant.bias).max() < 1 << (formats.BIAS_BITS - 1)
    got = scaled(matmul(x, part.weight), part.requant, bits)
    # Exact but for one rounding of the output (two with a narrow port), given the integer weights.
    exact = ((x - zero_point) @ (part.weight * part.step[:, None]).T + bias) / step
    slack = 0.5 + 0.5 * 2.0**part.requant.pre_shift * part.step.max() / step
    # The bias also holds the mean rounding error of the weights.
    drift = ((x - zero_point).mean(0) @ (weight - part.weight * part.step[:, None]).T) / step
    assert np.abs(got - exact - drift).max() <= slack + 0.51 * part.step.max() / step + 0.01
    if reach > 127:
        # The weights themselves lose 8 bits' worth.
        noise = got * step - real
        assert 10 * np.log10(np.mean(real**2) / np.mean(noise**2)) > 38


def test_columns_with_a_step_per_output():
    generator = rng()
    x = generator.integers(-127, 128, (300, 32))
    weight, step = generator.normal(size=(6, 32)), np.geomspace(1, 50, 6)
    part = columns(
        weight, np.zeros(6), step, moments=Moments(x), reach=127, requant_bits=18, what="layer"
    )
    got = scaled(matmul(x, part.weight), part.requant, 18) * step
    real = x @ weight.T
    inside = np.abs(real) < 126 * step
    assert np.abs(got - real)[inside].max() < 0.6 * step.max() + 0.05 * np.abs(real).max()


def test_port_saturates_only_where_the_output_does():
    for bits in (16, 18, 24):
        pre, post = shifts(np.array([0.01]), 127, np.array([1e9]), bits, "x")
        port = (1 << (bits - 1)) - 1
        multiplier = round(0.01 * 2.0 ** (pre + post))
        assert (port * multiplier) >> post >= 127


def test_shifts_refuse_what_the_core_cannot_express():
    with pytest.raises(ModelError, match=r"head: its output is 0\.01 accumulator units a step"):
        shifts(np.array([100.0]), 127, np.array([1e3]), 18, "head")


def test_a_multiplier_may_take_all_its_bits():
    for shift in (formats.POST_SHIFTS[0], formats.POST_SHIFTS[-1]):
        factor = np.array([65535 * 2.0**-shift])
        assert shifts(factor, 127, np.array([100.0]), 18, "x") == (0, shift)


@pytest.mark.parametrize(("bits", "error", "clipped"), [(8, 6, 1.1), (4, 30, 2.5)])
def test_inputs_that_hardly_change_get_the_finest_step(bits, error, clipped):
    """Their results would have steps that no multiplier reaches."""
    generator = rng()
    x = generator.integers(-1, 2, (400, 24))
    weight = generator.normal(size=(12, 24)) * np.geomspace(1, 60, 12)[:, None]
    weight[3], bias = 0, 1e4 * generator.normal(size=12)
    step = finest(weight, bias, GRIDS[bits])

    def made(step):
        return columns(
            weight, bias, step, moments=Moments(x), reach=127, requant_bits=24, what="layer",
            grid=GRIDS[bits],
        )

    part = made(step)
    found = (matmul(x, part.weight) + part.requant.bias) * part.step
    assert np.abs((found - (x @ weight.T + bias)) / part.step).max() < error  # accumulator's steps
    with pytest.raises(ModelError, match="cannot express"):
        made(step / clipped)


def test_huge_bias_takes_a_coarser_step():
    weight = np.full((1, 4), 1e-9)
    part = columns(
        weight,
        np.array([5.0]),
        0.05,
        moments=Moments(np.ones((8, 4))),
        reach=127,
        requant_bits=18,
        what="layer",
    )
    got = scaled(np.zeros((1, 1), np.int64), part.requant, 18)
    assert got[0, 0] == 100


def test_single_multiplier():
    requant = single(0.0123, 127, 64 * 127 * 127, 18, "logits")
    acc = np.arange(-10000, 10000, 37)
    got = scaled(acc[:, None], requant, 18)[:, 0]
    assert np.abs(got - acc * 0.0123).max() <= 0.51


def test_correlated_rounding_beats_the_nearest_and_is_complete():
    generator = rng()
    mixing = generator.normal(size=(6, 80)) + 0.1 * generator.normal(size=(6, 80))
    x = np.rint(30 * generator.normal(size=(1000, 6)) @ mixing)
    weight = generator.normal(size=(10, 80))
    step = np.abs(weight).max(axis=1) / 127
    error = [
        np.mean((x @ (weight - q * step[:, None]).T) ** 2)
        for q in (nearest(weight, step, GRIDS[8]), Moments(x).round(weight, step, GRIDS[8]))
    ]
    assert error[1] < error[0] / 10
    # Nor is there where a row has one weight only, such as in a copy.
    one = weight * (np.arange(80) == np.arange(10)[:, None])
    np.testing.assert_array_equal(
        Moments(x).round(one, step, GRIDS[8]), nearest(one, step, GRIDS[8]))
    # Without correlation there is nothing to gain: every weight takes the nearest integer.
    white = Moments(np.eye(80)[np.arange(8000) % 80] * 9)
    np.testing.assert_array_equal(
        white.round(weight, step, GRIDS[8]), nearest(weight, step, GRIDS[8]))
