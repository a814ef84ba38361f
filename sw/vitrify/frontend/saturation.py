"""Quantisers among the activations of a model: what they cut off stays, what they round does not.

A quantiser and its dequantiser have two effects.  Rounding only loses precision: the compiler
quantises again, with steps of its own.  *Saturation* may be a part of the network: a ReLU is often
nothing but the zero point of an unsigned type.  Where saturation cuts something that the images
have, it becomes a ``Clip`` of the float graph; everywhere else the pair disappears.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from vitrify.arch.errors import ModelError
from vitrify.ir import Evaluator, shape_of
from vitrify.ir.quantisers import QUANTISERS, Quantiser

from .edit import Editor, constant_of
from .inputs import image_input, task_inputs
from .integer import without_integers

#: Share of a tensor's energy that saturation may cut unnoticed: 35 dB below the signal.
UNNOTICED = 3e-4
#: Images that are looked at.
_IMAGES = 16
#: Operators that only move elements of their first input.
_MOVES = (
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Expand", "Tile",
    "Identity", "DepthToSpace", "SpaceToDepth", "Gather",
)  # fmt: skip
#: Largest numbers of the float types that codes may have.
_FLOATS = {
    "FLOAT8E4M3FN": 448.0, "FLOAT8E4M3FNUZ": 240.0, "FLOAT8E5M2": 57344.0,
    "FLOAT8E5M2FNUZ": 57344.0, "FLOAT4E2M1": 6.0,
}  # fmt: skip
#: Operators whose results are never negative.
_POSITIVE = ("Softmax", "Relu", "Sigmoid", "HardSigmoid", "Abs", "Exp")


@dataclass(frozen=True)
class _Step:
    """``clip(round(x / scale + zero), low, high)``; scale and zero broadcast to ``x``."""

    scale: np.ndarray
    zero: np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The values of ``x`` that it saturates at."""
        return (self.low - self.zero) * self.scale, (self.high - self.zero) * self.scale

    def said(self, x: ir.Value, kept: ir.Value) -> Quantiser:
        """For the record: it quantised ``x``, and ``kept`` is in the place of what it made."""
        low, high = float(np.min(self.low)), float(np.max(self.high))
        return Quantiser(x.name or "", self.scale, self.zero, low, high, kept.name or "")

    def same(self, other: _Step) -> bool:
        """Whether both have the same codes for the same numbers."""
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)


def _step(node: ir.Node) -> _Step | None:
    """The parameters of a quantiser or dequantiser, when they are constants."""
    scale, zero = constant_of(node.inputs[1]), None
    given = len(node.inputs) > 2 and node.inputs[2] is not None
    if given:
        zero = constant_of(node.inputs[2])
    if scale is None or (given and zero is None):
        return None
    form: tuple[int, ...] = ()
    if scale.size > 1:
        source = node.inputs[0]
        rank = None if source is None or source.shape is None else len(source.shape)
        axis = node.attributes["axis"].value if "axis" in node.attributes else 1
        block = node.attributes["block_size"].value if "block_size" in node.attributes else 0
        if rank is None or block or scale.ndim != 1:
            return None
        form = tuple(scale.size if place == axis % rank else 1 for place in range(rank))
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if "output_dtype" in node.attributes and node.attributes["output_dtype"].value:
        kind = ir.DataType(node.attributes["output_dtype"].value).numpy()
    low, high = _range(kind)
    shift = np.zeros(1) if zero is None else zero.astype(np.float64)
    return _Step(
        scale.astype(np.float64).reshape(form if scale.size > 1 else ()),
        shift.reshape(form if shift.size > 1 else ()), low, high,
    )  # fmt: skip


def _lacks_rank(node: ir.Node) -> bool:
    """Whether it quantises by channels of a tensor of unknown rank."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.inputs) < 2:
        return False
    scale, source = constant_of(node.inputs[1]), node.inputs[0]
    return scale is not None and scale.size > 1 and source is not None and source.shape is None


def _range(kind: np.dtype) -> tuple[float, float]:
    """Least and largest code of a type."""
    stored = ir.DataType.from_numpy(kind)
    if stored.name in _FLOATS:
        return -_FLOATS[stored.name], _FLOATS[stored.name]
    if stored.name.startswith("U"):
        return 0.0, 2.0**stored.bitwidth - 1
    return -(2.0 ** (stored.bitwidth - 1)), 2.0 ** (stored.bitwidth - 1) - 1


def _constants(model: ir.Model) -> set[ir.Value]:
    """Values that do not depend on the inputs."""
    known = set(model.graph.initializers.values())
    for node in model.graph:
        if all(value is None or value in known for value in node.inputs):
            known.update(node.outputs)
    return known


def _before_moves(model: ir.Model, fixed: set[ir.Value]) -> None:
    """Put dequantisers before what only moves codes, and quantisers behind it."""
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type in _MOVES and node.inputs else None
        maker = None if source is None else source.producer()
        if maker is None or maker.op_type != "QuantizeLinear" or source in fixed:
            continue
        step = _step(maker)
        if step is None or step.scale.size > 1:
            continue
        edit = Editor(model.graph, node)
        attributes = {name: found.value for name, found in node.attributes.items()}
        plain = edit.op("DequantizeLinear", source, *maker.inputs[1:])
        made = ir.node(
            node.op_type, [plain, *node.inputs[1:]], attributes,
            num_outputs=len(node.outputs), name=node.name,
        )  # fmt: skip
        model.graph.insert_before(node, made)
        results = []
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name, new.shape = edit.free(f"{old.name}_plain"), old.shape
            again = edit.op("QuantizeLinear", new, *maker.inputs[1:])
            again.meta["within"] = True
            results.append(again)
        edit.replace(*results)


def _is_positive(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    if node is None:
        return False
    if node.op_type in (*_MOVES, "DequantizeLinear", "QuantizeLinear", "Clip"):
        return _is_positive(node.inputs[0])
    return node.op_type in _POSITIVE


@dataclass
class _Cut:
    """What share of a tensor's energy its quantiser cuts off below and above."""

    below: float
    above: float


class _Judge:
    """Which saturations matter."""

    def __init__(self, model: ir.Model, images: np.ndarray | None, fixed: set[ir.Value]) -> None:
        self.cuts: dict[ir.Value, _Cut] = {}
        quantisers = [
            (node, step.bounds)
            for node in model.graph
            if node.op_type == "QuantizeLinear"
            and node.inputs[0] not in fixed
            and not node.outputs[0].meta.get("within")
            and (step := _step(node)) is not None
        ]
        clips = [
            (node, (low, high))
            for node in model.graph
            if node.outputs[0].meta.get("saturates")
            and (low := constant_of(node.inputs[1])) is not None
            and (high := constant_of(node.inputs[2])) is not None
        ]
        found = [*quantisers, *clips]
        if not found:
            return
        names = {node.inputs[0].name or "" for node, _ in found if node.inputs[0] is not None}
        judge = None
        if images is not None:
            try:
                judge = Evaluator(model, sorted(names - {image_input(model).name or ""}))
            # its exceptions share no base of their own; it lacks kernels for some types
            except Exception:
                judge = None
        if images is None or judge is None:
            for node, (low, high) in found:
                kept = (low == 0).all() and not _is_positive(node.inputs[0])
                self.cuts[node.outputs[0]] = _Cut(float(kept), float((high == 0).all()))
            return
        self._measure(model, judge, found, images)

    def _measure(
        self, model: ir.Model, judge: Evaluator,
        found: list[tuple[ir.Node, tuple[np.ndarray, np.ndarray]]], images: np.ndarray,
    ) -> None:  # fmt: skip
        image = image_input(model)
        batch = image.shape[0] if image.shape is not None else 1
        size = batch if isinstance(batch, int) else min(len(images), _IMAGES)
        sums = {node: np.zeros(3) for node, _ in found}
        tasks = {
            task.name or "": np.zeros(
                [dim if isinstance(dim, int) else size for dim in shape_of(task)], np.int64
            )
            for task in task_inputs(model)
        }
        for at in range(0, max(1, min(len(images), _IMAGES) // size) * size, size):
            # a fixed batch that is larger than the images meets some of them twice
            part = np.take(images, range(at, at + size), axis=0, mode="wrap")
            tensors = judge.run({image.name or "": part, **tasks})
            tensors[image.name or ""] = part
            for node, (low, high) in found:
                assert node.inputs[0] is not None
                x = tensors[node.inputs[0].name or ""].astype(np.float64)
                sums[node] += [
                    np.square(np.minimum(x - low, 0.0)).sum(),
                    np.square(np.maximum(x - high, 0.0)).sum(),
                    np.square(x).sum(),
                ]
        for node, (below, above, energy) in sums.items():
            self.cuts[node.outputs[0]] = _Cut(*(np.array([below, above]) / max(energy, 1e-300)))

    def clipped(self, edit: Editor, x: ir.Value, code: ir.Value, step: _Step) -> ir.Value:
        """``x`` after the saturation of the quantiser that makes ``code``, where that matters."""
        cut = self.cuts.get(code, _Cut(0.0, 0.0))
        bounds = step.bounds
        # Functions have the same bounds for all channels: those of the codes, if need be.
        coded = max(np.size(bound) for bound in bounds) > 1 and cut != _Cut(0.0, 0.0)
        if coded:
            bounds = np.asarray(step.low), np.asarray(step.high)
            x = edit.op("Div", x, edit.constant(step.scale))
            x = edit.op("Add", x, edit.constant(step.zero))
        if cut.below > UNNOTICED:
            x = edit.op("Max", x, edit.constant(bounds[0]))
        if cut.above > UNNOTICED:
            x = edit.op("Min", x, edit.constant(bounds[1]))
        if coded:
            x = edit.op("Sub", x, edit.constant(step.zero))
            x = edit.op("Mul", x, edit.constant(step.scale))
        return x


def input_range(model: ir.Model) -> tuple[float, float] | None:
    """Least and largest number of the image by the quantiser that reads it, if one does."""
    model = model.clone()
    without_integers(model)
    image = image_input(model)
    for node, place in image.uses():
        if place == 0 and node.op_type == "QuantizeLinear" and (step := _step(node)) is not None:
            return step.said(image, image).bounds
        if place == 0 and node.outputs[0].meta.get("saturates"):
            return node.outputs[0].meta["saturates"].bounds
    return None


def with_rounding(model: ir.Model) -> None:
    """Let QONNX's quantisers, saturations so far, round as well, in place."""
    for node in list(model.graph):
        said = node.outputs[0].meta.get("saturates")
        if said is not None:
            edit = Editor(model.graph, node)
            scale, zero = edit.constant(said.scale), edit.constant(said.zero)
            code = edit.op("Round", edit.op("Add", edit.op("Div", node.inputs[0], scale), zero))
            bounds = [edit.constant(np.array(bound)) for bound in (said.low, said.high)]
            code = edit.op("Clip", code, *bounds)
            edit.replace(edit.op("Mul", edit.op("Sub", code, zero), scale))


def without_quantisers(model: ir.Model, images: np.ndarray | None = None) -> None:
    """Replace the quantisers and dequantisers of activations, in place.

    What they said is left in ``model.meta``, see :mod:`vitrify.ir.quantisers`, with the names of
    what takes their places.

    Parameters
    ----------
    images:
        Inputs [N, C, H, W] of the model that show where saturation matters; without them a bound
        at zero is taken for a ReLU, and others for never reached.
    """
    fixed = _constants(model)
    if any(_lacks_rank(node) for node in model.graph):
        ShapeInferencePass()(model)
    _before_moves(model, fixed)
    fixed = _constants(model)
    judge = _Judge(model, images, fixed)
    said: list[Quantiser] = []
    for node in list(model.graph):
        if node.op_type == "DequantizeLinear" and node.inputs[0] not in fixed:
            _plain(model, node, judge, said)
        elif node.outputs[0].meta.get("saturates"):
            edit = Editor(model.graph, node)
            low, high = constant_of(node.inputs[1]), constant_of(node.inputs[2])
            assert node.inputs[0] is not None
            assert low is not None
            assert high is not None
            step = _Step(np.ones(()), np.zeros(()), low, high)
            kept = judge.clipped(edit, node.inputs[0], node.outputs[0], step)
            edit.replace(kept)
            said.append(replace(node.outputs[0].meta["saturates"], value=kept.name or ""))
    for node in list(model.graph):
        if node.op_type == "QuantizeLinear" and node.inputs[0] not in fixed:
            _codes(model, node, judge)
    if said:
        model.meta[QUANTISERS] = said


def _plain(
    model: ir.Model, node: ir.Node, judge: _Judge, said: list[Quantiser]
) -> None:
    """A dequantiser: with its quantiser a saturation, alone an affine function of the codes."""
    edit, code = Editor(model.graph, node), node.inputs[0]
    assert code is not None
    step, maker = _needed(node), code.producer()
    if maker is not None and maker.op_type == "QuantizeLinear":
        before = _needed(maker)
        assert maker.inputs[0] is not None
        if before.same(step):
            kept = judge.clipped(edit, maker.inputs[0], code, before)
            if not code.meta.get("within"):
                said.append(before.said(maker.inputs[0], kept))
            edit.replace(kept)
            return
    number = edit.op("Cast", code, to=ir.DataType.FLOAT.value)
    less = edit.op("Sub", number, edit.constant(step.zero)) if step.zero.any() else number
    edit.replace(edit.op("Mul", less, edit.constant(step.scale)))


def _codes(model: ir.Model, node: ir.Node, judge: _Judge) -> None:
    """What is left of a quantiser: its codes are a result, or something computes with them."""
    code = node.outputs[0]
    if not code.uses() and not code.is_graph_output():
        model.graph.remove(node, safe=True)
        return
    edit, step = Editor(model.graph, node), _needed(node)
    assert node.inputs[0] is not None
    x = node.inputs[0]
    for value in (code, *_moved(code)):
        value.type = ir.TensorType(ir.DataType.FLOAT)
    # results saturate when they get their type
    if not _is_result(code):
        x = judge.clipped(edit, x, code, step)
    scaled = edit.op("Div", x, edit.constant(step.scale))
    edit.replace(edit.op("Add", scaled, edit.constant(step.zero)) if step.zero.any() else scaled)


def _moved(code: ir.Value) -> list[ir.Value]:
    """Everything that is ``code`` moved about."""
    found = []
    for node, place in code.uses():
        if node.op_type in _MOVES and place == 0:
            found += [part for result in node.outputs for part in (result, *_moved(result))]
    return found


def _is_result(code: ir.Value) -> bool:
    """Whether ``code`` is only moved about before it is an output of the model."""
    values = (code, *_moved(code))
    return all(
        node.op_type in _MOVES and place == 0 for value in values for node, place in value.uses()
    )


def _needed(node: ir.Node) -> _Step:
    step = _step(node)
    if step is None:
        raise ModelError(
            f"Node '{node.name}' ({node.op_type}) is not supported: its scale and zero point are "
            "no constants for each tensor or channel; export the model with static quantisation."
        )
    return step
