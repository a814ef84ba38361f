import numpy as np
import pytest

from vitrify.ir import UNARY
from vitrify.quant import scheme

SEED = 5


def rng():
    print(f"seed {SEED}")
    return np.random.default_rng(SEED)


def test_residual_step_fits_what_has_no_outliers():
    rows = rng().normal(size=(500, 64))
    step = scheme.residual_step([scheme.StreamRead(rows, 5.0, 0)])
    assert step == 2.0**-12  # 2**-12.7 would fit; the finest step is the limit
    rows *= 100
    step = scheme.residual_step([scheme.StreamRead(rows, float(np.abs(rows).max()), 3)])
    assert np.abs(rows).max() <= 32767 * step < 2 * np.abs(rows).max()


def test_residual_step_of_small_values_and_large_epsilons():
    rows = 1e-5 * rng().normal(size=(500, 64))
    read = scheme.StreamRead(rows, 5e-5, 0)
    assert 5e-5 / 4096 <= scheme.residual_step([read]) < 5e-5 / 2048
    finest = scheme.StreamRead(rows, 5e-5, 0, finest=0.01)
    assert scheme.residual_step([read, finest]) == 2.0**-6


def test_residual_step_clips_a_rare_outlier():
    """A row that one channel dominates tolerates clipping; all other rows want a fine step."""
    rows = rng().normal(size=(2000, 192)) * 0.5
    rows[::50, 41] = 570
    step = scheme.residual_step([scheme.StreamRead(rows, 570.0, i) for i in range(24)])
    assert step == 2.0**-6


def test_gains_are_legal_and_better_than_one_for_all():
    generator = rng()
    rows = generator.normal(size=(600, 48)) * np.geomspace(0.2, 5, 48)
    peak = np.abs(rows).max(axis=0)
    matrix = generator.normal(size=(96, 48)) / np.geomspace(0.2, 5, 48)
    gain = scheme.gains(rows, peak, matrix)
    units = gain * 4
    np.testing.assert_array_equal(units, np.rint(units))
    assert units.min() >= 1
    assert units.max() <= 255

    def error(g):
        q = np.clip(np.rint(rows * g), -128, 127)
        return np.mean(((rows - q / g) @ matrix.T) ** 2)

    assert error(gain) < 0.3 * error(np.full(48, 127 / peak.max()))


def test_tensor_step_clips_rare_outliers():
    rows = rng().normal(size=(4000, 16))
    rows[0, 0] = 15.0
    step = scheme.tensor_step(rows, 15.0)
    assert 3 < 127 * step < 15
    steps = scheme.channel_steps(rows, np.abs(rows).max(axis=0))
    assert steps.shape == (16,)
    assert steps[0] > 1.2 * steps[1:].max()


def test_channel_steps_of_a_dead_channel_stay_positive():
    rows = rng().normal(size=(100, 3))
    rows[:, 1] = 0
    steps = scheme.channel_steps(rows, np.abs(rows).max(axis=0))
    assert (steps > 0).all()


@pytest.mark.parametrize("kind", sorted(UNARY))
def test_activation_tables_follow_the_function(kind):
    rows = rng().normal(size=(1000, 32)) * 2
    chosen = scheme.activation(kind, rows, rows.max(axis=0), np.ones(32))
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
    chosen = scheme.activation(kind, rows, rows.max(axis=0), np.ones(4))
    got = (chosen.codes(rows).astype(float) - chosen.zero_point) * chosen.step_out
    exact = UNARY[kind].reference(rows)
    assert 10 * np.log10(np.mean(exact**2) / np.mean((got - exact) ** 2)) > 35


@pytest.mark.parametrize("kind", ["gelu", "silu", "relu"])
def test_a_large_unit_is_split_into_copies_that_add_up(kind):
    rows = rng().normal(size=(1000, 64)) * 2
    rows[::50, 7] = rng().uniform(50, 215, 20)
    chosen = scheme.activation(kind, rows, rows.max(axis=0), np.ones(64))
    assert chosen.copies[7] > 10
    assert (np.delete(chosen.copies, 7) == 1).all()
    level = np.append(0.0, chosen.level(np.arange(1, chosen.copies[7])))
    codes = chosen.codes(rows[:, 7, None] - level).astype(float)
    parts = (codes - chosen.zero_point) * chosen.step_out
    total = parts.sum(axis=1) - (chosen.copies[7] - 1) * chosen.rest
    exact = UNARY[kind].reference(rows[:, 7])
    # Half a step of each copy, and the dip of the copy that is about to rise.
    assert np.abs(total - exact).max() < 0.4 + 0.5 * chosen.copies[7] * chosen.step_out


def test_bounded_activations_are_never_split():
    rows = rng().normal(size=(500, 16))
    rows[:5, 3] = 300.0
    assert (scheme.activation("tanh", rows, rows.max(axis=0), np.ones(16)).copies == 1).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -40.0, 3000.0])
def test_values_that_are_all_but_equal_have_a_window(value):
    """However few float32 numbers lie between the lowest and the highest."""
    rows = np.full((200, 3), value, np.float32)
    rows[::2] = np.nextafter(rows[::2], np.float32(1e9))
    found = scheme.activation("relu", rows, rows.max(axis=0), np.ones(3), False)
    assert np.isfinite([found.centre, found.step_in, found.step_out]).all()


def test_units_beside_those_that_give_nothing_are_not_split_without_end():
    """All units but one are below zero: there is no range to split the large one into."""
    rows = np.tile(np.array([40.0, *[-3.0] * 23]), (8, 1)) * np.linspace(0.5, 1, 8)[:, None]
    chosen = scheme.activation("relu", rows, rows.max(axis=0), np.ones(24), symmetric=False)
    assert chosen.copies.max() <= 1024


def test_a_unit_has_no_more_copies_than_are_allowed(monkeypatch):
    rows = rng().normal(size=(1000, 64)) * 2
    rows[::50, 7] = 200
    arguments = "relu", rows, rows.max(axis=0), np.ones(64)
    copies = scheme.activation(*arguments).copies.max()
    assert copies > 10
    for most, found in ((copies, copies), (copies - 1, 1)):
        monkeypatch.setattr(scheme, "_MOST_COPIES", most)
        assert scheme.activation(*arguments).copies.max() == found
