import numpy as np

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


def test_a_subsample_sees_every_token() -> None:
    """Equal steps through images of 64 rows would see one token in four."""
    tokens = np.tile(np.arange(64), 32)[:, None]
    found = scheme.subsample(tokens)
    assert len(found) <= 512
    assert len(np.unique(found)) > 60


def test_residual_step_of_rows_without_spread():
    """Rows of one channel, or of equal numbers, have no spread: they asked for the finest step."""
    column = np.linspace(-60, 60, 512)[:, None]
    assert scheme.residual_step([scheme.StreamRead(column, 60.0, 0)]) * 32767 >= 55
    rows = np.concatenate([np.ones((256, 3)), 60 * rng().uniform(0.5, 1, size=(256, 3))])
    assert scheme.residual_step([scheme.StreamRead(rows, 60.0, 0)]) * 32767 >= 55
