"""Rounding and saturation: the vectorised rules equal the scalar contract."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vitrify.arch import formats
from vitrify.golden import numerics

VALUES = st.integers(-(2**45), 2**45)


@given(VALUES, st.integers(0, 40))
def test_round_shift_is_half_up(x: int, shift: int) -> None:
    exact = Fraction(x, 2**shift)
    expected = (exact + Fraction(1, 2)).__floor__() if shift else x
    assert formats.round_shift(x, shift) == expected
    assert numerics.round_shift(np.array([x], np.int64), shift)[0] == expected
    assert numerics.round_shift(np.array([x], np.int64), np.array([shift]))[0] == expected


@given(VALUES, st.integers(2, 40))
def test_saturate_clips_and_keeps(x: int, bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    y = formats.saturate(x, bits)
    assert low <= y <= high
    assert y == x if low <= x <= high else y in (low, high)
    assert numerics.saturate(np.array([x], np.int64), bits)[0] == y


@given(VALUES)
def test_saturate_sym8(x: int) -> None:
    y = formats.saturate_sym8(x)
    assert y == (x if -127 <= x <= 127 else 127 * (1 if x > 0 else -1))
    assert numerics.saturate_sym8(np.array([x], np.int64))[0] == y


@given(st.lists(st.integers(0, 2**50), min_size=1, max_size=20))
def test_bit_length(values: list[int]) -> None:
    got = numerics.bit_length(np.array(values, np.int64))
    assert got.tolist() == [v.bit_length() for v in values]


@given(st.integers(1, formats.MAX_DEPTH))
def test_inv_dim(dim: int) -> None:
    mantissa, shift = formats.inv_dim(dim)
    assert 2**15 <= mantissa < 2**16
    assert abs(Fraction(mantissa, 2**shift) * dim - 1) <= Fraction(1, 2**15)
