"""ONNX's ``Resize`` in NumPy: nearest, linear and cubic, an axis after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import BackendError
from vitrify.program.onnx_graph import Node

Array = npt.NDArray[Any]
#: Elements of the largest tensor that is made of smaller ones.
MOST_ELEMENTS = 1 << 28
#: Since this operator set there is a region of interest between the image and the scales.
_WITH_REGION = 11


def resize(node: Node, opset: int, arrays: list[Array | None]) -> Array:
    """As :mod:`vitrify.runtime.numpy_ops` wants it."""
    x = arrays[0]
    assert x is not None, "Resize has an input"
    for name, known in (
        ("antialias", 0), ("exclude_outside", 0), ("keep_aspect_ratio_policy", "stretch"),
    ):
        if node.attributes.get(name, known) != known:
            raise BackendError(f"node {node.name!r} (Resize) with {name} needs ONNX Runtime: "
                               f"install it with `pip install onnxruntime`")
    scales, sizes = [*arrays[1:], None, None, None][opset >= _WITH_REGION :][:2]
    axes = node.attributes.get("axes", list(range(x.ndim)))
    result: Array = x
    for place, axis in enumerate(axes):
        old = x.shape[axis]
        if sizes is not None and sizes.size:
            new = int(sizes[place])
            scale = new / old
        else:
            assert scales is not None, "Resize has scales or sizes"
            scale = float(scales[place])
            new = int(np.floor(old * scale))
        if new != old or scale != 1:
            check_size(node, (*result.shape[:axis], new, *result.shape[axis + 1 :]))
            result = _along(result, axis, *_taps(node, old, new, scale))
    return result.astype(x.dtype)


def check_size(node: Node, shape: Sequence[int]) -> None:
    """Refuse a result that is too large, before it is made."""
    if math.prod(shape) > MOST_ELEMENTS:
        raise BackendError(
            f"node {node.name!r} ({node.op_type}) makes a tensor of the shape {list(shape)}, and "
            f"{MOST_ELEMENTS:,} elements are the most"
        )


def _along(x: Array, axis: int, places: Array, weights: Array) -> Array:
    """Weighted sums of elements ``places [taps, new]`` along an axis."""
    form = [1] * x.ndim
    form[axis] = -1
    parts = [
        np.take(x, place, axis=axis) * weight.reshape(form)
        for place, weight in zip(places, weights.astype(np.float32), strict=True)
    ]
    return np.sum(parts, axis=0)


def _taps(node: Node, old: int, new: int, scale: float) -> tuple[Array, Array]:
    """Which elements make up each new one, and how much of each: ``[taps, new]`` both."""
    out = np.arange(new)
    mode = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    match mode:
        case "half_pixel":
            at = (out + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            at = (out + 0.5) / scale - 0.5 if new > 1 else out * 0.0
        case "align_corners":
            at = out * ((old - 1) / max(1, new - 1))
        case "asymmetric":
            at = out / scale
        case _:
            raise BackendError(f"node {node.name!r} (Resize) with {mode} needs ONNX Runtime: "
                               f"install it with `pip install onnxruntime`")
    kind = node.attributes.get("mode", "nearest")
    if kind == "nearest":
        places, weights = _nearest(node, at)[None], np.ones((1, new))
    else:
        first = np.floor(at)
        part = at - first
        if kind == "linear":
            steps, weights = np.arange(2), np.stack([1 - part, part])
        else:
            steps = np.arange(-1, 3)
            weights = _cubic(np.abs(part - steps[:, None]), node.attributes.get("cubic_coeff_a"))
        places = first.astype(np.int64) + steps[:, None]
    return np.clip(places, 0, old - 1).astype(np.int64), weights


def _nearest(node: Node, at: Array) -> Array:
    match node.attributes.get("nearest_mode", "round_prefer_floor"):
        case "round_prefer_floor":
            return np.ceil(at - 0.5)
        case "round_prefer_ceil":
            return np.floor(at + 0.5)
        case "floor":
            return np.floor(at)
        case _:
            return np.ceil(at)


def _cubic(distance: Array, given: float | None) -> Array:
    a = -0.75 if given is None else given
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, far)
