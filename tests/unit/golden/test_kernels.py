"""Integer kernels against real arithmetic, and at their extremes."""

from __future__ import annotations

import numpy as np
import pytest

from vitrify.arch import formats
from vitrify.golden.ops import layernorm, requantise, softmax
from vitrify.golden.ops.matmul import matmul


def test_matmul_is_exact_at_the_longest_depth() -> None:
    operand = np.full((2, formats.MAX_DEPTH), 255)
    stationary = np.full((3, formats.MAX_DEPTH), -127)
    assert (matmul(operand, stationary) == -127 * 255 * formats.MAX_DEPTH).all()
    with pytest.raises(ValueError, match="4097"):
        matmul(np.ones((1, 4097)), np.ones((1, 4097)))


def test_matmul_equals_integer_product() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(-128, 256, (50, 1300)), rng.integers(-127, 128, (40, 1300))
    assert (matmul(a, b) == a @ b.T).all()


@pytest.mark.parametrize("tokens", [1, 2, 197, 1025])
def test_softmax_row_is_close_to_real(tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    logits = np.clip(rng.normal(0, 12, (20, tokens)), -127, 127).astype(np.int8)
    weight = softmax.exp2(logits, softmax.row_max(logits))
    assert weight.min() >= 0
    assert weight.max() <= 224
    assert (weight.max(axis=1) >= 128).all()
    real = 2.0 ** (logits / 4.0 - softmax.row_max(logits)[:, None]) * 128
    # Rounding costs half a step; 1 + f lies 0 to 6.2 % above 2**f.
    assert (weight - real <= 0.062 * real + 0.5).all()
    assert (weight - real >= -0.5).all()
    pre, multiplier = softmax.reciprocal(weight.sum(axis=1))
    exact = 1 / weight.sum(axis=1)
    scale = multiplier / 2.0 ** (formats.RECIPROCAL_SHIFT + pre)
    assert np.abs(scale / exact - 1).max() < 2e-3


def test_softmax_edges() -> None:
    logits = np.array([[-127, -127], [127, -127], [0, 3]], np.int8)
    weight = softmax.exp2(logits, softmax.row_max(logits))
    assert weight.tolist() == [[160, 160], [224, 0], [128, 224]]
    # A stale logit above the maximum counts as exponent 0.
    assert softmax.exp2(np.array([[127]], np.int8), np.array([-32])).tolist() == [[224]]


@pytest.mark.parametrize("maximum", [40, 63, 64, 1000, 1 << 16])
def test_a_maximum_beyond_all_logits_leaves_no_weight(maximum: int) -> None:
    """Whatever statistic it is: the core takes 7 bits of it, which is more than logits have."""
    logits = np.array([[127, 0, -128]], np.int8)
    assert softmax.exp2(logits, np.array([maximum])).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("total", [0, 1, 127, 128, 1023, 1024, 224 * 4096])
def test_reciprocal_range(total: int) -> None:
    pre, multiplier = softmax.reciprocal(np.array([total]))
    assert 0 <= pre[0] <= formats.MAX_PRE_SHIFT
    assert 0 < multiplier[0] < 2**13


@pytest.mark.parametrize("dim", [1, 2, 96, 192, 768, 4096])
@pytest.mark.parametrize("spread", [3, 60, 4000])
def test_layernorm_is_close_to_real(dim: int, spread: int) -> None:
    rng = np.random.default_rng(dim + spread)
    x = np.clip(rng.normal(spread / 3, spread, (30, dim)).round(), -32768, 32767)
    mean, shift, mantissa = layernorm.finish(
        x.sum(axis=1).astype(np.int64), (x * x).sum(axis=1).astype(np.int64),
        **dict(zip(("inv_dim", "inv_shift"), formats.inv_dim(dim), strict=True)), epsilon=1,
    )
    gain = np.full(dim, 64)
    y = layernorm.apply(x.astype(np.int16), mean, shift, mantissa, gain)
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + 1 / 16)
    real = np.clip((x - x.mean(axis=1, keepdims=True)) / deviation, -7.9, 7.9)
    if dim > 2:
        assert np.abs(y / 16 - real).max() < 0.13


@pytest.mark.parametrize("value", [-32768, 32767, 0])
@pytest.mark.parametrize("dim", [1, 3, 4096])
def test_constant_rows_do_not_blow_up(value: int, dim: int) -> None:
    inv, sh = formats.inv_dim(dim)
    total = np.array([value * dim])
    mean, shift, mantissa = layernorm.finish(
        total, total * value, inv_dim=inv, inv_shift=sh, epsilon=0
    )
    assert 1 <= shift[0] <= 18
    assert 256 <= mantissa[0] <= 511
    assert abs(mean[0] / 4 - value) <= abs(value) * 2e-5 + 0.25


@pytest.mark.parametrize("dim", [3, 7, 192])
def test_the_variance_is_rounded_half_up(dim: int) -> None:
    """For rows of mean 0 whose variance is so small that a step of it shows in the mantissa."""
    inv, sh = formats.inv_dim(dim)
    squares = np.arange(1, 4 * dim)
    _, shift, mantissa = layernorm.finish(
        0 * squares, squares, inv_dim=inv, inv_shift=sh, epsilon=1
    )
    table, unit = formats.rsqrt_table(), 2 ** (sh - 2 * formats.MEAN_FRAC)
    for square, found in zip(squares, zip(shift, mantissa, strict=True), strict=True):
        variance = (int(square) * inv * 2 + unit) // (2 * unit) + 1
        half = (variance.bit_length() + 1) // 2
        assert found == (half, table[(variance << formats.RSQRT_INDEX_BITS) >> 2 * half])


def test_requantise_extremes() -> None:
    acc = np.array([[-(2**27), 2**27 - 1, 0]])
    options = {"bias": 0, "pre_shift": 0, "requant_bits": 18}
    value = requantise.scale(acc, multiplier=65535, post_shift=12, **options)
    assert requantise.to_int8(value).tolist() == [[-127, 127, 0]]
    assert requantise.to_int16(value).tolist() == [[-32768, 32767, 0]]
    old = np.array([[-32768, 32767, 5]], np.int16)
    assert requantise.to_int16(value, old).tolist() == [[-32768, 32767, 5]]


def test_table_is_indexed_by_the_byte() -> None:
    table = np.arange(256).astype(np.uint8).view(np.int8)
    assert requantise.to_int8(np.array([[-1, 1, -127]]), table).tolist() == [[-1, 1, -127]]


@pytest.mark.parametrize("dim", [1, 5, 17, 300, 4096])
def test_row_statistics_are_exact(dim):
    """Of the largest sums, too."""
    inv, sh = formats.inv_dim(dim)
    x = np.full((3, dim), -32768, np.int16)
    x[1, ::2], x[2] = 32767, 3
    mean, shift, mantissa = layernorm.statistics(x, inv_dim=inv, inv_shift=sh, epsilon=1)
    table = formats.rsqrt_table()
    for row, *found in zip(x.tolist(), mean, shift, mantissa, strict=True):
        m = sum(row) * inv + (1 << sh - 3) >> sh - 2
        m = max(-(1 << 17), min(m, (1 << 17) - 1))
        power = sum(v * v for v in row) * inv + (1 << sh - 5) >> sh - 4
        variance = max(max(power - m * m, 0) + 1, 1)
        half = (variance.bit_length() + 1) // 2
        assert found == [m, half, table[(variance << formats.RSQRT_INDEX_BITS) >> 2 * half]]
