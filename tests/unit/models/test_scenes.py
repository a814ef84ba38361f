"""Scenes are what they say, and both models are as good on them as their card says."""

import re

import numpy as np
import onnxruntime
import pytest

from models.scenes import MOST, NOTHING, SIDE, Painter
from models.scenes_vit.measure import HERE, MEASURES, compiled

SCENES = 1000


@pytest.fixture(scope="module")
def tests():
    return Painter("test").paint(SCENES)


def test_scenes_are_the_same_again(tests):
    again = Painter("test").paint(20)
    for field, other in zip(again, tests, strict=True):
        np.testing.assert_array_equal(field, other[:20])
    assert (Painter("train").paint(20).image != again.image).any(axis=(1, 2, 3)).all()


def test_masks_and_boxes_say_the_same(tests):
    assert tests.image.shape == (SCENES, SIDE, SIDE, 1)
    count = (tests.label != NOTHING).sum(axis=1)
    assert count.min() >= 1
    assert count.max() == MOST
    assert np.bincount(tests.label.ravel(), minlength=NOTHING + 1)[:NOTHING].min() > 150
    for mask, label, box in zip(tests.mask, tests.label, tests.box, strict=True):
        there = label != NOTHING
        assert set(np.unique(mask)) == {*label[there], NOTHING}
        covered = np.zeros_like(mask, bool)
        for name, (x, y, width, height) in zip(label[there], box[there] * SIDE, strict=True):
            rows = slice(round(y - height / 2), round(y + height / 2))
            columns = slice(round(x - width / 2), round(x + width / 2))
            digit = mask[rows, columns] == name
            # A box is as small as its digit.
            assert digit.any(axis=0)[[0, -1]].all()
            assert digit.any(axis=1)[[0, -1]].all()
            covered[rows, columns] = True
        assert (mask[~covered] == NOTHING).all()


@pytest.mark.parametrize("name", MEASURES)
def test_floats_are_as_good_as_claimed(name, tests):
    measure, title, _ = MEASURES[name]
    session = onnxruntime.InferenceSession(HERE / f"{name}.onnx")
    row = re.search(rf"\| {re.escape(title)}[^|]*\| ([\d.]+)", (HERE / "README.md").read_text())
    assert row
    assert measure(session, tests)[0] == pytest.approx(float(row[1]), abs=0.001)


@pytest.mark.parametrize(("name", "arch"), [("segment", "ulx3s"), ("detect", "nano")])
def test_the_core_runs_all_of_it(name, arch):
    assert type(compiled(name, arch)).__name__ == "Program"
