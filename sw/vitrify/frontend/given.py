"""Which canonical tensor each quantiser of the file was for.

Names and layouts differ between the file and the canonical graph, numbers do not: both are run on
an image, and tensors with the same numbers in whatever order are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from vitrify.ir import Evaluator, shape_of
from vitrify.ir.quantisers import Quantiser

from .inputs import image_input, task_inputs

#: Largest difference of tensors that are the same, relative to the root mean square.
_SAME = 1e-3
_SEED = 7


def placed(
    quantisers: Sequence[Quantiser], source: ir.Model, canonical: ir.Model,
    images: np.ndarray | None,
) -> list[Quantiser]:
    """``quantisers``, each with the canonical tensor that has the numbers of its own.

    Parameters
    ----------
    quantisers : with names of ``source`` in ``value``
    source : the model behind the removal of its quantisers
    canonical : what was made of it
    images : inputs [N, C, H, W]; noise without
    """
    here = {value.name for node in source.graph for value in node.outputs}
    names = sorted({q.value for q in quantisers} & here)
    # the canonical graph takes any number: as many as the file may want
    count = shape_of(image_input(source))[0]
    count = count if isinstance(count, int) else 1
    before = Evaluator(source, names).run(_feeds(source, images, count))
    found: dict[str, tuple[str, bool]] = {}
    after = Evaluator(canonical).run(_feeds(canonical, images, count))
    by_size: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, numbers in _sorted(after).items():
        by_size.setdefault(numbers.size, []).append((name, numbers))
    for name, numbers in _sorted(before).items():
        most = _SAME * max(float(np.sqrt(np.mean(numbers**2))), 1e-12)
        for other, candidate in by_size.get(numbers.size, []):
            if np.abs(candidate - numbers).max(initial=0.0) <= most:
                apart = np.abs(after[other].ravel() - before[name].ravel())
                found[name] = other, bool(apart.max(initial=0.0) <= most)
                break
    image = image_input(canonical).name or ""
    found |= {image: (image, True)}
    placed = [(q, *found.get(q.value, ("", False))) for q in quantisers]
    return [replace(q, value=value, aligned=aligned) for q, value, aligned in placed]


def _feeds(model: ir.Model, images: np.ndarray | None, count: int) -> dict[str, np.ndarray]:
    image = image_input(model)
    _, *size = shape_of(image)
    if images is None:
        images = np.random.default_rng(_SEED).normal(size=(1, *map(int, size)))
    some = np.take(images, range(count), axis=0, mode="wrap")
    feeds = {image.name or "": some}
    for task in task_inputs(model):
        shape = [dim if isinstance(dim, int) else count for dim in shape_of(task)]
        feeds[task.name or ""] = np.zeros(shape, np.int64)
    return feeds


def _sorted(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: np.sort(array, axis=None).astype(np.float64)
        for name, array in tensors.items() if array.dtype.kind == "f"
    }
