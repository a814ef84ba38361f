"""How often a classifier is right, and how far another one is from it."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import InputError
from vitrify.arch.text import short

from . import intervals

Logits = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

#: A label among so many best classes counts for "top-5".
_TOP = 5
#: Largest label.
_MOST_CLASSES = (1 << 31) - 1


@dataclass(frozen=True)
class Labelled:
    """A picture file and its class."""

    file: Path
    label: int


def read_labels(folder: Path, table: Path, split: str | None = None) -> list[Labelled]:
    """The pictures that a CSV file with the columns ``file`` and ``label`` names.

    Parameters
    ----------
    folder : where the files are, or a folder of that name for each split
    table : the CSV file; a column ``split`` is optional
    split : only rows with this ``split``

    Raises
    ------
    InputError
        If a file, a column or a label is missing, or nothing is left.
    """
    if not folder.is_dir():
        raise InputError(f"there is no directory {str(folder)!r} of pictures")
    found = []
    for number, row in _rows(table, ("file", "label", *(["split"] if split else []))):
        if split is not None and row["split"] != split:
            continue
        try:
            label = int(row["label"])
        except (TypeError, ValueError):
            label = -1
        if not 0 <= label <= _MOST_CLASSES:
            raise InputError(
                f"line {number} of {str(table)!r}: {short(row['label'])} is not the number of a "
                f"class"
            )
        name = row["file"] or ""
        if Path(name).is_absolute() or ".." in Path(name, row.get("split") or "").parts:
            raise InputError(
                f"line {number} of {str(table)!r} names {short(name)}, outside of {str(folder)!r}"
            )
        places = [folder / name, folder / (row.get("split") or "") / name]
        file = next((place for place in places if os.path.isfile(place)), None)  # noqa: PTH113
        if file is None:
            raise InputError(
                f"line {number} of {str(table)!r} names {short(name)}, which is not in "
                f"{str(folder)!r}"
            )
        found.append(Labelled(file, label))
    if not found:
        which = f" of the split {split!r}" if split is not None else ""
        raise InputError(f"{str(table)!r} has no pictures{which}")
    return found


def _rows(table: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV file that has ``columns``, numbered as an editor does."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for name in columns:
                if name not in (reader.fieldnames or ()):
                    raise InputError(
                        f"{str(table)!r} has no column {name!r}; it needs {', '.join(columns)}"
                    )
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the labels in {str(table)!r}: {error}") from error


def check_labels(labels: Labels, classes: int) -> None:
    """Refuse labels that a model with ``classes`` classes cannot give."""
    if labels.max(initial=0) >= classes:
        raise InputError(
            f"there is a label {int(labels.max())}, and the model knows the classes 0 to "
            f"{classes - 1}"
        )


def top(logits: Logits, labels: Labels, best: int = 1) -> float:
    """Share of images whose label is among the ``best`` highest of ``logits [N, classes]``."""
    return float(_among(logits, labels, best).mean())


def _among(logits: Logits, labels: Labels, best: int = 1) -> npt.NDArray[np.bool_]:
    right = logits[np.arange(len(labels)), labels]
    higher = (logits > right[:, None]).sum(axis=1)
    ties = (logits == right[:, None]) & (np.arange(logits.shape[1]) < labels[:, None])
    return higher + ties.sum(axis=1) < best


def scores(logits: Logits, labels: Labels) -> dict[str, Any]:
    """``top1``, its 95 % ``top1_interval``, and ``top5``."""
    right = _among(logits, labels)
    return {
        "top1": float(right.mean()),
        "top1_interval": intervals.of_share(int(right.sum()), len(right)),
        "top5": top(logits, labels, _TOP),
    }


def agreement(reference: Logits, other: Logits) -> dict[str, Any]:
    """Share of images with the same best class; mean divergence from ``reference``, in nats.

    ``kl_interval`` is its 95 % interval.
    """
    exact, near = _log_softmax(reference), _log_softmax(other)
    same = reference.argmax(axis=1) == other.argmax(axis=1)
    divergence = (np.exp(exact) * (exact - near)).sum(axis=1)
    return {
        "agreement": float(same.mean()), "kl": float(divergence.mean()),
        "kl_interval": intervals.of_mean(divergence),
    }


def paired(reference: Logits, other: Logits, labels: Labels) -> dict[str, Any]:
    """How top-1 differs on the same images: :func:`vitrify.runtime.intervals.paired`."""
    return intervals.paired(_among(reference, labels), _among(other, labels))


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
