"""Canonical float graph and calibration images to the integer graph of the core."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.ir import shape_of

from .assemble import Assembler
from .calibrate import Progress, Request, collect
from .graph import Float, QInput, QuantGraph
from .heads import weighed_request
from .plan import AttentionOp, ExpertsOp, LinearOp, Operand, PatchOp, Plan
from .planner import image_of, make_plan

#: Calibration's share of the time.
_CALIBRATION = 0.5
#: Steps of an 8-bit pixel.
_PIXEL_STEPS = 255


class Preprocess(Protocol):
    """What the quantiser asks of a preprocessing specification."""

    def affine(self, channels: int) -> tuple[Float, Float]:
        """``(gain, offset)`` per channel: the model's input is ``pixel * gain + offset``."""
        ...


def quantise(
    canonical: ir.Model,
    calibration: npt.NDArray[np.float32],
    *,
    arch: ArchConfig,
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
) -> QuantGraph:
    """Quantise a canonical model.

    Parameters
    ----------
    canonical : as :func:`vitrify.frontend.canonicalise` returns it
    calibration : float32 ``[N, C, H, W]``, preprocessed like the model's inputs
    arch : the multiplier widths of the core
    preprocess : how pictures become inputs; with it the core sees exact 8-bit pixels, without it
        the input range is that of the calibration images
    progress : called with a phrase and the fraction of the whole that is done

    Raises
    ------
    UnsupportedOpError
        Names the first node that the core has no place for.
    InputError
        If the calibration images do not fit the model.
    """
    images = check_images(canonical, calibration)
    plan = make_plan(canonical)
    stats = collect(
        canonical, images, _requests(plan), _part(progress, 0.0, _CALIBRATION), tasks=plan.tasks
    )
    patch = next(op for op in plan.ops if isinstance(op, PatchOp))
    multiplier, offset = _input_map(images, preprocess)
    _, channels, height, width = images.shape
    spec = QInput(
        name=plan.image,
        out=f"{plan.image}.rows",
        shape=(channels, height, width),
        patch=patch.patch,
        prefix=len(patch.prefix),
        multiplier=multiplier,
        offset=offset,
    )
    return Assembler(plan, stats, arch, spec, images, _part(progress, _CALIBRATION, 1.0)).graph


def _part(progress: Progress | None, start: float, stop: float) -> Progress | None:
    """``progress`` for a stage that takes it from ``start`` to ``stop``."""
    if progress is None:
        return None
    return lambda phrase, fraction: progress(phrase, start + (stop - start) * fraction)


def check_images(canonical: ir.Model, images: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """``images`` as float32 ``[N, C, H, W]`` that fits the model's input."""
    image = image_of(canonical)
    shape = shape_of(image)
    images = np.asarray(images)
    if images.ndim != len(shape) or images.shape[1:] != shape[1:]:
        raise InputError(
            f"the calibration images have shape {list(images.shape)}, the model's input "
            f"{image.name!r} takes {list(shape)}"
        )
    if not len(images):
        raise InputError("there are no calibration images; give at least one, better 32 or more")
    if not np.issubdtype(images.dtype, np.floating) or not np.isfinite(images).all():
        raise InputError(
            f"the calibration images ({images.dtype}) must be finite floats, preprocessed as the "
            f"model expects its input"
        )
    return images.astype(np.float32, copy=False)


def _input_map(
    images: npt.NDArray[np.float32], preprocess: Preprocess | None
) -> tuple[Float, Float]:
    """Factor and offset per channel from the float input to -128 … 127."""
    if preprocess is not None:
        gain, offset = preprocess.affine(images.shape[1])
        return 1 / gain, -offset / gain - 128
    low = images.min(axis=(0, 2, 3)).astype(np.float64)
    high = images.max(axis=(0, 2, 3)).astype(np.float64)
    multiplier = _PIXEL_STEPS / np.maximum(high - low, 1e-6)
    return multiplier, -low * multiplier - 128


def _requests(plan: Plan) -> list[Request]:
    """Everything the assembler will ask of the calibration."""
    wanted: list[Request] = []
    for op in plan.ops:
        if isinstance(op, LinearOp):
            wanted += operand_requests(op.x)
            used = op.role not in ("add", "gate") or op.out in plan.outputs.values()
            if used and (op.kind or op.value):
                wanted.append(result_request(op))
        elif isinstance(op, ExpertsOp):
            plain, *normalised = operand_requests(op.x)
            wanted += [plain, *normalised, replace([plain, *normalised][-1], beside=op.scores)]
            if op.out in plan.outputs.values() and op.value:
                wanted.append(Request(op.value))
        elif not isinstance(op, PatchOp) or op.out in plan.outputs.values():
            wanted.append(Request(op.value))
            if isinstance(op, AttentionOp) and op.weighings:
                wanted.append(weighed_request(op))
    return wanted


def operand_requests(x: Operand) -> list[Request]:
    """An operand as it is, and normalised if a LayerNorm reads it."""
    plain = Request(x.value, x.rows)
    if x.norm is None:
        return [plain]
    return [plain, Request(x.value, x.rows, x.norm.epsilon)]


def result_request(op: LinearOp) -> Request:
    """What a linear layer gives (before its activation), or its sum with the stream."""
    return Request(op.before if op.kind else op.value, op.x.rows)
