"""How much results depend on each row of what a layer makes.

A classifier answers from one row, and asks the others little: in most layers of ViT-tiny the class
token's row has more of the squared gradient of the logits than the 196 others.  Weights that are
rounded for some inputs should know which of them matter (as in GuidedQuant, Kim et al. 2025).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .calibrate import Progress
from .derivatives import Array, Differentiable, differentiable
from .planner import stored_as

#: Images that pass together.
_BATCH = 2
#: Directions in the results.
_DRAWN = 2
_SEED = 20261128
#: Rows count by this power of their gradients' squares, which are drawn, and of few images; and at
#: least by so much, in parts of the mean.  Of 0.5 and 1 the former left less divergence on
#: calibration images held back, and as much noise.
_POWER, _LEAST = 0.5, 0.3


def influence(
    model: ir.Model, images: npt.NDArray[np.float32], progress: Progress | None = None
) -> dict[str, Array]:
    """Of the rows of each linear layer's result, by its name: ``[N, T]``, 1 in the mean.

    None for a model with operations that have no derivative here.  An error counts by the square of
    the gradients of results in a random direction: in the mean of directions, that is what it adds
    to the noise of :class:`~vitrify.quant.precision.Judge`.
    """
    if not differentiable(model):
        return {}
    net, rng = Differentiable(model), np.random.default_rng(_SEED)
    names = [stored_as(value) for value in model.graph.outputs]
    parts: dict[str, list[Array]] = {}
    for start in range(0, len(images), _BATCH):
        done = net.forward(images[start : start + _BATCH])
        squares: dict[str, Array] = {}
        for _ in range(_DRAWN):
            wanted = {name: _direction(done.values[name], rng) for name in names}
            for layer, gradient in done.backward(wanted).items():
                square = np.square(gradient).mean(axis=-1).reshape(len(gradient), -1)
                squares[layer] = squares.get(layer, 0) + square
        for layer, square in squares.items():
            parts.setdefault(layer, []).append(square)
        if progress is not None:
            progress("weighing rows", min(1.0, (start + _BATCH) / len(images)))
    return {layer: _shares(np.concatenate(found)) for layer, found in parts.items()}


def _direction(result: Array, rng: np.random.Generator) -> Array:
    """A random direction for each image, in parts of its result's length."""
    flat = result.reshape(len(result), -1)
    drawn = rng.normal(size=flat.shape).astype(np.float32)
    if result.ndim == 2 and result.shape[1] > 1:
        # what all logits have in common changes no class
        flat, drawn = (each - each.mean(axis=1, keepdims=True) for each in (flat, drawn))
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return (drawn / np.maximum(length, 1e-6)).reshape(result.shape)


def _shares(square: Array) -> Array:
    share = (square / max(float(square.mean()), 1e-30)) ** _POWER
    share = share / max(float(share.mean()), 1e-30) + _LEAST
    return (share / share.mean()).astype(np.float32)
