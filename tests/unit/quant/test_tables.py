import numpy as np
import pytest

from vitrify.ir import UNARY
from vitrify.quant import tables

SEED = 5


def rng():
    print(f"seed {SEED}")
    return np.random.default_rng(SEED)


@pytest.mark.parametrize("kind", sorted(UNARY))
def test_activation_tables_follow_the_function(kind):
    rows = rng().normal(size=(1000, 32)) * 2
    chosen = tables.activation(kind, rows, rows.max(axis=0), np.ones(32))
    assert (chosen.copies == 1).all()
    assert np.abs(chosen.table.astype(int)).max() <= 127
    got = (chosen.codes(rows).astype(float) - chosen.zero_point) * chosen.step_out
    exact = UNARY[kind].reference(rows)
    # The square spreads over a wide range: fewer codes where most values are.
    least = 27 if kind == "relu_squared" else 33
    assert 10 * np.log10(np.mean(exact**2) / np.mean((got - exact) ** 2)) > least


@pytest.mark.parametrize(
    ("kind", "middle"), [("sigmoid", 0.5), ("y = Exp(x)", 2.0), ("tanh", -2.0)]
)
def test_results_far_from_zero_are_in_the_format(kind, middle):
    """No zero point of a byte is as far away as these results are from zero."""
    rows = middle + 0.3 * rng().normal(size=(1000, 4))
    chosen = tables.activation(kind, rows, rows.max(axis=0), np.ones(4))
    got = (chosen.codes(rows).astype(float) - chosen.zero_point) * chosen.step_out
    exact = UNARY[kind].reference(rows)
    assert 10 * np.log10(np.mean(exact**2) / np.mean((got - exact) ** 2)) > 35


@pytest.mark.parametrize("kind", ["s = Sqrt(x)  y = Reciprocal(s)", "y = Reciprocal(x)"])
def test_a_pole_beside_the_window_costs_nothing(kind):
    """Rounding may bring an input to the pole or behind it, and finds the largest value there."""
    rows = np.geomspace(1.6, 40, 1000)[:, None].repeat(4, axis=1)
    chosen = tables.activation(kind, rows, rows.max(axis=0), np.ones(4))

    def of(x):
        return (chosen.codes(x).astype(float) - chosen.zero_point) * chosen.step_out

    exact = UNARY[kind].reference(rows)
    assert 10 * np.log10(np.mean(exact**2) / np.mean((of(rows) - exact) ** 2)) > 35
    near = of(np.linspace(-0.2, 1.6, 50))
    assert (near >= 0.9 * exact.max()).all()
    assert (near <= 1.6 * exact.max()).all()


def test_inputs_that_are_all_at_the_end_of_the_domain():
    kind = "c = Constant <value_float = 1.0> ()  d = Sub(c, x)  y = Sqrt(d)"
    rows = np.ones((100, 4))
    chosen = tables.activation(kind, rows, rows.max(axis=0), np.ones(4))
    found = (chosen.codes(rows).astype(float) - chosen.zero_point) * chosen.step_out
    assert np.abs(found).max() < 1e-2


@pytest.mark.parametrize("kind", ["gelu", "silu", "relu"])
def test_a_large_unit_is_split_into_copies_that_add_up(kind):
    rows = rng().normal(size=(1000, 64)) * 2
    rows[::50, 7] = rng().uniform(50, 215, 20)
    chosen = tables.activation(kind, rows, rows.max(axis=0), np.ones(64))
    assert chosen.copies[7] > 10
    assert (np.delete(chosen.copies, 7) == 1).all()
    level = np.append(0.0, chosen.level(np.arange(1, chosen.copies[7])))
    codes = chosen.codes(rows[:, 7, None] - level).astype(float)
    parts = (codes - chosen.zero_point) * chosen.step_out
    total = parts.sum(axis=1) - (chosen.copies[7] - 1) * chosen.rest
    exact = UNARY[kind].reference(rows[:, 7])
    # Half a step of each copy, and the dip of the copy that is about to rise.
    assert np.abs(total - exact).max() < 0.4 + 0.5 * chosen.copies[7] * chosen.step_out


@pytest.mark.parametrize(("kind", "zero"), [("relu", -128), ("gelu", -124)])
@pytest.mark.parametrize("before", [None, (0.05, 3)])
def test_a_format_of_a_file_has_the_lowest_byte(kind, zero, before):
    """Unsigned bytes less 128: a unit that is off is exactly zero, GELU's dip is not cut off."""
    rows, step = rng().uniform(-2, 2, size=(1000, 32)), 0.04
    chosen = tables.kept_activation(kind, rows, np.ones(32), before, (step, zero))
    assert (chosen.step_out, chosen.zero_point) == (step, zero)
    assert chosen.table.min() == -128
    got = (chosen.codes(rows).astype(float) - zero) * step
    exact = UNARY[kind].reference(rows)
    assert np.abs(got - exact).max() <= step / 2 + chosen.step_in
    assert abs(np.mean(got - exact)) < step / 10
    if kind == "relu":
        assert (got[rows < -chosen.step_in] == 0).all()


def test_stationary_results_of_a_file_have_not():
    rows = rng().normal(size=(1000, 32))
    chosen = tables.kept_activation("tanh", rows, np.ones(32), None, (0.004, 0), symmetric=True)
    assert chosen.table.min() == -127


def test_bounded_activations_are_never_split():
    rows = rng().normal(size=(500, 16))
    rows[:5, 3] = 300.0
    assert (tables.activation("tanh", rows, rows.max(axis=0), np.ones(16)).copies == 1).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -40.0, 3000.0])
def test_values_that_are_all_but_equal_have_a_window(value):
    """However few float32 numbers lie between the lowest and the highest."""
    rows = np.full((200, 3), value, np.float32)
    rows[::2] = np.nextafter(rows[::2], np.float32(1e9))
    found = tables.activation("relu", rows, rows.max(axis=0), np.ones(3), False)
    assert np.isfinite([found.centre, found.step_in, found.step_out]).all()


def test_units_beside_those_that_give_nothing_are_not_split_without_end():
    """All units but one are below zero: there is no range to split the large one into."""
    rows = np.tile(np.array([40.0, *[-3.0] * 23]), (8, 1)) * np.linspace(0.5, 1, 8)[:, None]
    chosen = tables.activation("relu", rows, rows.max(axis=0), np.ones(24), symmetric=False)
    assert chosen.copies.max() <= 1024


def test_a_unit_has_no_more_copies_than_are_allowed(monkeypatch):
    rows = rng().normal(size=(1000, 64)) * 2
    rows[::50, 7] = 200
    arguments = "relu", rows, rows.max(axis=0), np.ones(64)
    copies = tables.activation(*arguments).copies.max()
    assert copies > 10
    for most, found in ((copies, copies), (copies - 1, 1)):
        monkeypatch.setattr(tables, "_MOST_COPIES", most)
        assert tables.activation(*arguments).copies.max() == found
