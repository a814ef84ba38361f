"""Canonical float graph and calibration images to the integer graph of the core."""

from __future__ import annotations

import copy
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError, InputError, UnsupportedOpError
from vitrify.ir import ARRANGE, DTYPE, attributes_of, shape_of, source_of, steps_of
from vitrify.ir.quantisers import quantisers_of
from vitrify.ops.attention.bands import banded
from vitrify.ops.linear.plan import copy_stream
from vitrify.ops.registry import ASSEMBLES, DECOMPOSITIONS, PLANS
from vitrify.program import is_real
from vitrify.quant.assemble import Assembler, assemble
from vitrify.quant.calibrate import Progress, Request, Stats, collect
from vitrify.quant.decompose import decompose
from vitrify.quant.given import Byte, Given, told
from vitrify.quant.graph import OutputForm, QInput, QuantGraph
from vitrify.quant.loop import Loop
from vitrify.quant.plan import Plan
from vitrify.quant.planner import image_of, make_plan, parameter, result_of
from vitrify.quant.precision import Judge, choose
from vitrify.quant.tensors import Float
from vitrify.quant.wanted import EIGHT, NARROW, WIDE, Weights

#: Calibration's share of the time.
_CALIBRATION = 0.5
#: Steps of an 8-bit pixel.
_PIXEL_STEPS = 255
#: Range of a channel, in parts of its largest number, below which it is a constant.
_CONSTANT = 2.0**-10


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
    weights: Weights = EIGHT,
    own_ranges: bool = False,
    narrow: QuantGraph | None = None,
) -> QuantGraph:
    """Quantise a canonical model.

    Formats of an already quantised model are kept where the core has them.

    Parameters
    ----------
    canonical : as :func:`vitrify.frontend.canonicalise` returns it
    calibration : float32 ``[N, C, H, W]``, preprocessed like the model's inputs
    arch : the multiplier widths of the core
    preprocess : how pictures become inputs; with it the core sees exact 8-bit pixels, without it
        the input range is that of the calibration images
    progress : called with a phrase and the fraction of the whole that is done
    weights : how many bits the weights of each layer have
    own_ranges : the images stand for others, and ranges are those that the model's quantisers say
    narrow : the same with four bits wherever these may be, if that is there already

    Raises
    ------
    UnsupportedOpError
        Names the first node that the core has no place for.
    InputError
        If the calibration images do not fit the model, or the weights cannot be had as wanted.
    CapacityError
        If the core takes no weights of four bits, and some are wanted.
    """
    if weights.bits != WIDE and not arch.nibbles:
        raise CapacityError(
            f"arch {arch.name!r} is without 'nibbles', which weights of 4 bits need; use "
            f"--weights 8, or an architecture that has them"
        )
    images = check_images(canonical, calibration)
    fitting = banded(canonical, arch)
    stats = _collected(fitting, images, part_of(progress, 0.0, _CALIBRATION))
    plain, plan = plan_of(fitting)
    assert plan.rows is not None, "plan_of looked"
    given = Given(quantisers_of(canonical))
    if own_ranges:
        _need_ranges(plan, given)
        stats = given.ranged(stats)
    multiplier, offset = _input_map(images, preprocess, given.byte(plan.image))
    known = {value.name for node in canonical.graph for value in node.outputs}
    _, channels, height, width = images.shape
    empty = QuantGraph(
        name=plan.name,
        input=QInput(
            name=plan.image, out=f"{plan.image}.rows", shape=(channels, height, width),
            patch=plan.rows.patch, prefix=plan.rows.prefix, multiplier=multiplier, offset=offset,
            strides=plan.rows.strides, pads=plan.rows.pads,
        ),
        outputs=dict(plan.outputs), tasks=dict(plan.tasks),
        forms={value.name or "": _form(value) for value in canonical.graph.outputs},
        sources=_sources(plain, plan),
    )

    def assembled(bits: int, start: float, stop: float) -> QuantGraph:
        graph = copy.deepcopy(empty)
        loop = Loop(graph, arch, images) if bits == NARROW else None
        assembler = Assembler(plan, stats, graph, arch, images, bits, loop, given)
        assemble(assembler, ASSEMBLES, part_of(progress, start, stop))
        graph.values = {name: value for name, value in graph.values.items() if value in known}
        graph.quantisers = told(given, assembler.kept, canonical, graph)
        return graph

    if weights.bits is not None:
        return assembled(weights.bits, _CALIBRATION, 1.0)
    wide, narrow = assembled(WIDE, 0.5, 0.55), narrow or assembled(NARROW, 0.55, 0.7)
    judge = Judge(canonical, arch, images, plan.tasks)
    return choose(wide, narrow, judge, weights, part_of(progress, 0.7, 1.0))


def _collected(
    canonical: ir.Model, images: npt.NDArray[np.float32], progress: Progress | None
) -> dict[Request, Stats]:
    """What the plan of a model wants to know of the calibration images.

    A plan has every weight in 64 bits: this one is gone while the model runs beside its statistics.
    """
    plain, plan = plan_of(canonical)
    requests, tasks = [each for op in plan.ops for each in op.requests(plan)], plan.tasks
    del plan
    return collect(plain, images, requests, progress, tasks=tasks)


def _need_ranges(plan: Plan, given: Given) -> None:
    """Refuse a model whose quantisers leave the range of a sum open."""
    missing = [
        product.x.value for product in plan.products()
        if product.x.version is not None and product.x.value not in given
    ]
    if missing:
        raise InputError(
            f"no quantiser of the model says the range of {missing[0]!r}, nor of "
            f"{len(set(missing)) - 1} others: give --calib, a few dozen images of the kind that "
            f"the model will see"
        )


def plan_of(canonical: ir.Model) -> tuple[ir.Model, Plan]:
    """A canonical model in operations that have a plan, and the plan: all that needs no images.

    Raises
    ------
    UnsupportedOpError
        Names the first node that the core has no place for.
    """
    plain = decompose(canonical, DECOMPOSITIONS)
    plan = make_plan(plain, PLANS, copy_stream)
    if plan.rows is None:
        raise UnsupportedOpError(f"nothing embeds the image {plan.image!r} in patches")
    return plain, plan


def _sources(plain: ir.Model, plan: Plan) -> dict[str, str]:
    """The original's node behind each op of a plan, where the canonical model knows one."""
    known = {
        name: source_of(node) or node.name or ""
        for node in plain.graph for name in (node.name, result_of(node))
    }
    found = {op.name: known.get(op.name) or known.get(op.value, "") for op in plan.ops}
    return {name: node for name, node in found.items() if node}


def _form(output: ir.Value) -> OutputForm:
    """How the user gets an output of a canonical model."""
    kind = ir.DataType[output.metadata_props.get(DTYPE, ir.DataType.FLOAT.name)]
    node = output.producer()
    if node is None or node.op_type != ARRANGE:
        return OutputForm(kind.numpy().name)
    attributes = attributes_of(node)
    form = tuple(attributes["form"])
    found = steps_of(np.array(attributes["index"]).reshape(form))
    assert found is not None, "the front end looked"
    start, grid, steps = found
    return OutputForm(
        kind.numpy().name, parameter(node, 1), parameter(node, 2), form, start,
        None if grid == form else grid, steps,
    )


def part_of(progress: Progress | None, start: float, stop: float) -> Progress | None:
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
    pixels = image.dtype is not None and not image.dtype.is_floating_point()
    if pixels and np.issubdtype(images.dtype, np.integer):
        images = images.astype(np.float32)
    if not is_real(images.dtype) or not np.isfinite(images).all():
        raise InputError(
            f"the calibration images ({images.dtype}) must be finite floats, preprocessed as the "
            f"model expects its input"
        )
    if pixels and (images.min() < 0 or images.max() > _PIXEL_STEPS):
        raise InputError(
            f"the calibration images reach from {images.min():g} to {images.max():g}, but input "
            f"{image.name!r} takes pixels 0 … 255 and normalises them itself"
        )
    return images.astype(np.float32, copy=False)


def _input_map(
    images: npt.NDArray[np.float32], preprocess: Preprocess | None, given: Byte | None
) -> tuple[Float, Float]:
    """Factor and offset per channel from the float input to -128 … 127."""
    if preprocess is None and given is not None:
        channels = np.ones(images.shape[1])
        return channels / given.step, channels * given.zero
    if preprocess is not None:
        gain, offset = preprocess.affine(images.shape[1])
        return 1 / gain, -offset / gain - 128
    low = images.min(axis=(0, 2, 3)).astype(np.float64)
    high = images.max(axis=(0, 2, 3)).astype(np.float64)
    # far from zero in steps so small that no bias would reach: other values must be possible
    constant = high - low <= _CONSTANT * np.maximum(abs(low), abs(high))
    low[constant] = np.minimum(low[constant], 0)
    high[constant] = np.maximum(high[constant], 0)
    multiplier = _PIXEL_STEPS / np.maximum(high - low, 1e-6)
    return multiplier, -low * multiplier - 128
