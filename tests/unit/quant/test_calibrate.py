"""Statistics of tensors over images, however many of these pass at once."""

import numpy as np
import pytest

from tests.unit.quant.graphs import Net
from vitrify.quant import calibrate
from vitrify.quant.calibrate import Request, collect

#: Bytes of the tensor that is watched, five rows of 16 channels, for an image.
EACH = 4 * 5 * 16


@pytest.mark.parametrize(
    ("room", "runs"), [(8 * EACH, [8, 2]), (3 * EACH, [3, 3, 2, 2]), (0, [1] * 10)]
)
def test_extremes_are_those_of_all_images(monkeypatch, room, runs):
    net, seen = Net(), []
    x = net.tokens()
    model, images = net.model(net.linear(x, 5, "last")), net.images(10)
    request = Request(x.name)

    class Counting(calibrate.Evaluator):
        def run(self, inputs):
            seen.append(len(inputs["image"]))
            return super().run(inputs)

    whole = calibrate.Evaluator(model, [x.name]).run({"image": images})[x.name].reshape(-1, 16)
    monkeypatch.setattr(calibrate, "Evaluator", Counting)
    monkeypatch.setattr(calibrate, "_BYTES", room)
    stats = collect(model, images, [request])[request]
    assert seen == runs
    assert stats.count == 50
    # Beside those that were seen, rows that more images may bring.
    assert (stats.low <= whole.min(axis=0)).all()
    assert (stats.high >= whole.max(axis=0)).all()
    np.testing.assert_allclose(stats.mean, whole.mean(axis=0), atol=1e-5)


def test_rows_are_sampled_alike_however_many_images_pass_at_once(monkeypatch):
    net = Net()
    x = net.tokens()
    model, images = net.model(net.linear(x, 5, "last")), net.images(10)
    request, found = Request(x.name), []
    monkeypatch.setattr(calibrate, "SAMPLE_ROWS", 30)
    for images_at_once in (8, 3, 1):
        monkeypatch.setattr(calibrate, "_BYTES", images_at_once * EACH)
        found.append(collect(model, images, [request])[request])
    for stats in found[1:]:
        np.testing.assert_allclose(stats.rows, found[0].rows, rtol=1e-4, atol=1e-5)
