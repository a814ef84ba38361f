# amaranth: UnusedElaboratable=no
"""rtl.lib.arith against golden.numerics: every value of small widths, drawn values of wide ones."""

import numpy as np
import pytest
from amaranth import Module, Signal, signed, unsigned
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrify.golden import numerics
from vitrify.rtl.lib import arith


def evaluate(expression, inputs, rows):
    """Values of ``expression`` (combinational) for every row of input values."""
    out = Signal(expression.shape())
    m = Module()
    m.d.comb += out.eq(expression)
    results = []

    async def bench(ctx):
        for row in rows:
            for signal, value in zip(inputs, row, strict=True):
                ctx.set(signal, int(value))
            results.append(ctx.get(out))

    sim = Simulator(m)
    sim.add_testbench(bench)
    sim.run()
    return np.array(results, np.int64)


def span(bits):
    return np.arange(-(1 << (bits - 1)), 1 << (bits - 1), dtype=np.int64)


@pytest.mark.parametrize("bits", [1, 2, 5, 7])
@pytest.mark.parametrize("shift", [0, 1, 2, 5, 6, 7, 9])
def test_round_shift_constant(bits, shift):
    x, values = Signal(signed(bits)), span(bits)
    got = evaluate(arith.round_shift(x, shift), [x], values[:, None])
    np.testing.assert_array_equal(got, numerics.round_shift(values, shift))


@pytest.mark.parametrize("is_signed", [True, False])
def test_round_shift_variable(is_signed):
    bits = 6
    x, shift = Signal(signed(bits) if is_signed else unsigned(bits)), Signal(4)
    values = span(bits) if is_signed else np.arange(1 << bits, dtype=np.int64)
    rows = np.array([(v, s) for v in values for s in range(16)])
    got = evaluate(arith.round_shift(x, shift), [x, shift], rows)
    np.testing.assert_array_equal(got, numerics.round_shift(rows[:, 0], rows[:, 1]))


@pytest.mark.parametrize("bits", [2, 4, 7, 8, 9, 11])
@pytest.mark.parametrize("to", [2, 4, 8])
def test_saturate(bits, to):
    x, values = Signal(signed(bits)), span(bits)
    got = evaluate(arith.saturate(x, to), [x], values[:, None])
    np.testing.assert_array_equal(got, numerics.saturate(values, to))


@pytest.mark.parametrize("bits", [3, 7, 8, 9, 12])
def test_saturate_sym8(bits):
    x, values = Signal(signed(bits)), span(bits)
    got = evaluate(arith.saturate_sym8(x), [x], values[:, None])
    np.testing.assert_array_equal(got, numerics.saturate_sym8(values))


def test_saturate_unsigned():
    x, values = Signal(9), np.arange(512)
    for expression, expected in (
        (arith.saturate(x, 8), np.clip(values, -128, 127)),
        (arith.saturate_sym8(x), np.clip(values, -127, 127)),
    ):
        np.testing.assert_array_equal(evaluate(expression, [x], values[:, None]), expected)


def edges(bits):
    """Integers of a signed width, often at its edges or at half steps."""
    high = (1 << (bits - 1)) - 1
    return st.one_of(
        st.integers(-high - 1, high),
        st.sampled_from([-high - 1, -high, -1, 0, 1, high - 1, high]),
        st.builds(lambda k, d: max(-high - 1, min(high, (1 << k) + d)),
                  st.integers(0, bits - 2), st.integers(-1, 1)),
        st.builds(lambda k, d: max(-high - 1, min(high, -(1 << k) + d)),
                  st.integers(0, bits - 2), st.integers(-1, 1)),
    )


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.tuples(edges(45), st.integers(0, 31)), min_size=1, max_size=50))
def test_wide(rows):
    x, shift = Signal(signed(45)), Signal(5)
    values = np.array(rows, np.int64)
    shifted = numerics.round_shift(values[:, 0], values[:, 1])
    expression = arith.round_shift(x, shift)
    np.testing.assert_array_equal(evaluate(expression, [x, shift], rows), shifted)
    np.testing.assert_array_equal(
        evaluate(arith.saturate(expression, 24), [x, shift], rows), numerics.saturate(shifted, 24))
    np.testing.assert_array_equal(
        evaluate(arith.saturate_sym8(expression), [x, shift], rows),
        numerics.saturate_sym8(shifted))
    for constant in (12, 16, 20, 24):
        np.testing.assert_array_equal(
            evaluate(arith.round_shift(x, constant), [x], values[:, :1]),
            numerics.round_shift(values[:, 0], constant))


@pytest.mark.parametrize("fabric", [True, False])
@pytest.mark.parametrize(("a", "b"), [(signed(5), unsigned(4)), (unsigned(4), unsigned(5)),
                                      (signed(3), unsigned(1)), (signed(13), unsigned(9))])
def test_multiplier(a, b, fabric):
    dut = arith.Multiplier(a, b, fabric=fabric)
    low = -(1 << (a.width - 1)) if a.signed else 0
    rng = np.random.default_rng(1)
    if a.width + b.width < 12:
        pairs = [(x, y) for x in range(low, low + (1 << a.width)) for y in range(1 << b.width)]
    else:
        pairs = list(zip(rng.integers(low, low + (1 << a.width), 500).tolist(),
                         rng.integers(0, 1 << b.width, 500).tolist(), strict=True))
        pairs += [(low, (1 << b.width) - 1), (low + (1 << a.width) - 1, (1 << b.width) - 1)]
    got = []

    async def bench(ctx):
        for i in range(len(pairs) + dut.latency):
            x, y = pairs[min(i, len(pairs) - 1)]
            ctx.set(dut.a, x)
            ctx.set(dut.b, y)
            if i >= dut.latency:
                got.append(ctx.get(dut.p))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    assert got == [x * y for x, y in pairs]


def test_multiplier_refuses_a_signed_second_factor():
    with pytest.raises(TypeError, match=r"must be unsigned, not signed\(4\)"):
        arith.Multiplier(signed(4), signed(4), fabric=True)
