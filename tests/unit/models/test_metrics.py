"""Metrics of segmentation and detection, against cases that are computed by hand."""

import numpy as np
import pytest

from models.metrics import Objects, average_precision, confusion, mean_iou, objects, overlaps

LEFT, RIGHT, FAR = (0.25, 0.5, 0.2, 0.4), (0.3, 0.5, 0.2, 0.4), (0.8, 0.8, 0.1, 0.1)


def said(*each: tuple[int, tuple[float, ...], float]) -> Objects:
    label, box, score = zip(*each, strict=True) if each else ((), (), ())
    return Objects(
        np.array(label, np.int64), np.array(box, float).reshape(-1, 4), np.array(score, float)
    )


def test_mean_iou() -> None:
    wanted = np.array([[0, 0, 1, 1]])
    found = np.array([[0, 1, 1, 1]])
    counts = confusion(found, wanted, 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 2, 0], [0, 0, 0]])
    # class 0: 1 of 2; class 1: 2 of 3; class 2 neither occurs nor is found
    assert mean_iou(counts) == pytest.approx((1 / 2 + 2 / 3) / 2)
    # found where it is not: it counts, as nothing
    assert mean_iou(np.add(counts, [[0, 0, 1], [0, 0, 0], [0, 0, 0]])) < mean_iou(counts)


def test_overlaps() -> None:
    found = overlaps(np.array([LEFT, FAR]), np.array([LEFT, RIGHT, FAR]))
    np.testing.assert_allclose(found, [[1, 0.15 / 0.25, 0], [0, 0, 1]])


def test_objects_are_the_surest_that_do_not_overlap() -> None:
    logits = np.log([[0.7, 0.1, 0.2], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6], [0.05, 0.05, 0.9]])
    boxes = np.array([LEFT, RIGHT, FAR, FAR])
    found = objects(logits, boxes, least=0.2)
    np.testing.assert_array_equal(found.label, [1, 0])
    np.testing.assert_allclose(found.score, [0.8, 0.3])
    np.testing.assert_array_equal(found.box, [RIGHT, FAR])
    assert len(objects(logits, boxes, least=0.2, overlap=0.7).label) == 3
    assert len(objects(logits, boxes, least=0.9).label) == 0


def test_average_precision() -> None:
    truth = [said((0, LEFT, 1), (0, FAR, 1))]
    assert average_precision(truth, truth, 2) == 1
    # the second hit comes behind a miss: precision 1 up to recall 1/2, 2/3 from there
    some = [said((0, LEFT, 0.9), (0, LEFT, 0.8), (0, FAR, 0.7))]
    assert average_precision(some, truth, 2) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision([said((0, RIGHT, 1))], truth, 2) == 0.5
    assert average_precision([said((0, RIGHT, 1))], truth, 2, overlap=0.7) == 0
    assert average_precision([said((1, LEFT, 1))], truth, 2) == 0
    assert average_precision([said()], truth, 2) == 0


def test_average_precision_ranks_over_all_pictures() -> None:
    truth = [said((0, LEFT, 1)), said((0, LEFT, 1))]
    found = [said((0, FAR, 0.9)), said((0, LEFT, 0.8))]
    assert average_precision(found, truth, 1) == pytest.approx(0.5 * 0.5)
