"""What segmentation and detection are measured by, in NumPy, and how a detector is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Objects", "average_precision", "confusion", "mean_iou", "objects", "overlaps"]

Float = npt.NDArray[np.floating]


class Objects(NamedTuple):
    """Objects in a picture.

    Attributes
    ----------
    label : ndarray
        int64 ``[count]``, classes.
    box : ndarray
        ``[count, 4]``: centres and extents (x, y, width, height), in any unit.
    score : ndarray
        ``[count]``, how sure each is; ones for the truth.
    """

    label: npt.NDArray[np.int64]
    box: Float
    score: Float


def confusion(
    found: npt.NDArray[np.integer], wanted: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Count pixels by true class and class found, ``[classes, classes]``."""
    pairs = wanted.ravel().astype(np.int64) * classes + found.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(confused: npt.NDArray[np.int64]) -> float:
    """Intersection over union of each class over all pictures, averaged over the classes.

    Classes that neither occur nor were found do not count.

    Parameters
    ----------
    confused : ndarray
        Of :func:`confusion`, summed over the pictures.
    """
    common = np.diag(confused)
    union = confused.sum(axis=0) + confused.sum(axis=1) - common
    return float((common[union > 0] / union[union > 0]).mean())


def overlaps(a: Float, b: Float) -> Float:
    """Intersection over union of boxes ``[m, 4]`` and ``[n, 4]`` (see :class:`Objects`), all pairs.

    Returns
    -------
    ndarray
        ``[m, n]``.
    """
    corners = [(x[..., :2] - x[..., 2:] / 2, x[..., :2] + x[..., 2:] / 2) for x in (a[:, None], b)]
    (low_a, high_a), (low_b, high_b) = corners
    sides = np.minimum(high_a, high_b) - np.maximum(low_a, low_b)
    common = np.clip(sides, 0, None).prod(axis=-1)
    return common / (a[:, None, 2:].prod(axis=-1) + b[:, 2:].prod(axis=-1) - common)


def objects(logits: Float, boxes: Float, *, least: float, overlap: float = 0.5) -> Objects:
    """Read what a detector says of a picture: the surest of boxes that overlap.

    Parameters
    ----------
    logits : ndarray
        ``[candidates, classes + 1]``; the last class is "nothing".
    boxes : ndarray
        ``[candidates, 4]``.
    least : float
        Probability, 0 to 1, below which a candidate is nothing.
    overlap : float
        Intersection over union from which the less sure of two boxes is dropped.
    """
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    label, score = shares[:, :-1].argmax(axis=1), shares[:, :-1].max(axis=1)
    kept: list[int] = []
    for place in np.argsort(-score, kind="stable"):
        if score[place] < least:
            break
        if not kept or overlaps(boxes[place][None], boxes[kept]).max() < overlap:
            kept.append(int(place))
    return Objects(label[kept], boxes[kept], score[kept])


def average_precision(
    found: Sequence[Objects], wanted: Sequence[Objects], classes: int, overlap: float = 0.5
) -> float:
    """Area under precision over recall, averaged over the classes (mAP, as PASCAL VOC since 2010).

    A box is right if it overlaps one of its class that no surer box has taken.  Precision at a
    recall is the largest at that recall or a larger one; classes that do not occur do not count.

    Parameters
    ----------
    found, wanted : sequence of Objects
        One a picture.
    overlap : float
        Intersection over union that makes a box right.
    """
    areas = []
    for name in range(classes):
        number = sum(int((truth.label == name).sum()) for truth in wanted)
        if not number:
            continue
        scores, right = [], []
        for said, truth in zip(found, wanted, strict=True):
            mine, free = said.label == name, truth.box[truth.label == name]
            order = np.argsort(-said.score[mine], kind="stable")
            for score, box in zip(said.score[mine][order], said.box[mine][order], strict=True):
                share = overlaps(box[None], free)[0]
                hit = bool(share.size) and share.max() >= overlap
                if hit:
                    free = np.delete(free, share.argmax(), axis=0)
                scores.append(score)
                right.append(hit)
        hits = np.array(right, bool)[np.argsort(-np.array(scores), kind="stable")].cumsum()
        precision = hits / np.arange(1, len(hits) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        areas.append(float((best * np.diff(hits, prepend=0)).sum() / number))
    return float(np.mean(areas))
