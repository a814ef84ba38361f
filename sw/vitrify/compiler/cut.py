"""A model that can be cut: what its tensors are, and the models of its parts."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.errors import ModelError
from vitrify.frontend import flattened, model_inputs
from vitrify.frontend.on_einsum import spelled_out
from vitrify.frontend.randomness import draws
from vitrify.frontend.size import set_shape
from vitrify.ir import BATCH, Evaluator, shape_of
from vitrify.ir.layout import ELEMENTWISE, OF_IMAGES
from vitrify.program.application import in_batches

from .inputs import type_of
from .one_range import Maps, stand_in

#: Images that show which axis is the batch, where that is free.
_TRIAL = 2
#: Operators that ask for a shape: where one is left, the batch is fixed to one.
_SHAPES = ("Shape", "Size")
#: Rank of images, whose channels come first, unless what reads them sums over the last axis.
_IMAGE_RANK = 4
#: A transposition of channels and rows.
_SWAPPED = (0, 2, 1)
_OF_ROWS = ("MatMul", "LayerNormalization", "RMSNormalization")


class CutError(ModelError):
    """A model cannot be cut; the message is a clause."""


@dataclass(frozen=True)
class Source:
    """A model without functions, and what is known of its tensors.

    Members
    -------
    batch : images of one run; ``None`` for any number
    images : the batch that the shapes are of
    arrays : type and shape of every tensor, by its name
    """

    model: ir.Model
    batch: int | None
    images: int
    arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]] = field(repr=False)

    def size(self, name: str) -> int:
        """Elements of a tensor, of one image."""
        return math.prod(self.arrays[name][1]) // self.images

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor where it goes from one part to another.

        All of a tensor is one image's where the model takes one: windows, say, along its first
        axis lie behind an axis of images then.
        """
        shape = self.arrays[name][1]
        return (1, *shape) if self.is_lifted(name) else shape

    def is_lifted(self, name: str) -> bool:
        """Whether a tensor gets an axis of images where it leaves its part."""
        shape = self.arrays[name][1]
        inner = len(shape) > 1 and not self.values[name].is_graph_output()
        return self.batch == 1 and inner and shape[:1] != (1,)

    def has_batch(self, name: str) -> bool:
        """Whether a tensor has images along its first axis."""
        return self.shape(name)[:1] == (self.images,)

    def holds_images(self, name: str) -> bool:
        """Whether a tensor has images along its first axis, and something of each."""
        return self.has_batch(name) and len(self.shape(name)) > 1

    def is_inner_image(self, name: str) -> bool:
        """Whether a tensor that some node makes is laid out as an image."""
        inner = name not in {value.name for value in self.model.graph.inputs}
        return inner and len(self.arrays[name][1]) == _IMAGE_RANK

    def channels(self, name: str) -> int:
        """Channels of a tensor."""
        return self.shape(name)[self.axis(name)]

    def padding(self, names: Sequence[str]) -> float:
        """Numbers of the image that some tensors make together, for one of theirs."""
        rows = sum(self.size(name) // self.channels(name) for name in names)
        width = max(map(self.channels, names), default=0)
        return rows * width / max(1, sum(map(self.size, names)))

    def axis(self, name: str) -> int:
        """The axis of a tensor's channels: the last, but the second of images.

        What reads a tensor of three or four axes, behind what works on every element alone, says
        it.
        """
        return self._axis(name) + self.is_lifted(name)

    def _axis(self, name: str) -> int:
        rank = len(self.arrays[name][1])
        left, seen = [self.values[name]], set[ir.Value]()
        while rank >= len(_SWAPPED) and left:
            value = left.pop()
            # in the model's order, so that the same model is always read in the same way
            readers = dict.fromkeys(use.node for use in value.uses())
            for node in readers if value not in seen else ():
                if node.op_type == "Transpose" and rank == len(_SWAPPED):
                    perm = node.attributes.get("perm")
                    return 1 if perm is not None and tuple(perm.as_ints()) == _SWAPPED else rank - 1
                if node.op_type in OF_IMAGES:
                    return 1
                if node.op_type in _OF_ROWS:
                    return rank - 1
                same = [out for out in node.outputs if len(self._shape(out)) == rank]
                left += same if node.op_type in ELEMENTWISE else []
            seen.add(value)
        return 1 if rank == _IMAGE_RANK else rank - 1

    @functools.cached_property
    def values(self) -> dict[str, ir.Value]:
        """Tensors by their names."""
        return ir.convenience.create_value_mapping(self.model.graph)

    def _shape(self, value: ir.Value | None) -> tuple[int, ...]:
        found = None if value is None else self.arrays.get(value.name or "")
        return () if found is None else found[1]

    def macs(self, node: ir.Node) -> int:
        """Multiply-accumulates of a node, of one image; 0 for one that multiplies no matrices."""
        shapes, out = list(map(self._shape, node.inputs)), self._shape(node.outputs[0])
        match node.op_type:
            case (
                "MatMul" | "Gemm" | "MatMulInteger" | "QGemm" | "FusedMatMul" | "QLinearMatMul"
                | "DynamicQuantizeMatMul" | "MatMulIntegerToFloat"
            ):
                first = shapes[0]
                turned = "transA" in node.attributes and node.attributes["transA"].as_int()
                each = first[0] if turned else first[-1]
            case "ConvTranspose":
                return math.prod(shapes[0]) * math.prod(shapes[1][1:]) // self.images
            case "Conv" | "ConvInteger" | "QLinearConv" | "FusedConv":
                kernel = shapes[3] if node.op_type == "QLinearConv" else shapes[1]
                each = math.prod(kernel[1:])
            case "Einsum":
                equation = node.attributes["equation"].as_string().replace(" ", "")
                *terms, kept = spelled_out(equation, list(map(len, shapes)))
                sizes = dict(
                    axis for term, shape in zip(terms, shapes, strict=True)
                    for axis in zip(term, shape, strict=True)
                )
                each = math.prod(size for axis, size in sizes.items() if axis not in kept)
            case "Attention" | "MultiHeadAttention" | "QAttention":
                first, second = [*shapes, ()][:2]
                if len(second) == 2:
                    # projections of queries, keys and values are in it
                    projected = math.prod(first[:-1]) * math.prod(second)
                    return (projected + 2 * math.prod(out) * first[1]) // self.images
                # keys by heads, or not, or in one tensor with the queries
                each = 2 * (second or first)[2 if len(second) == 4 else 1]
            case "LSTM" | "GRU" | "RNN":
                steps, *matrices = shapes[:3]
                return math.prod(steps[:2]) * sum(map(math.prod, matrices)) // self.images
            case _:
                return 0
        return math.prod(out) * each // self.images


def source_of(model: ir.Model, *, bodies: bool = False) -> Source:
    """``model`` ready to be cut; it stays as it is.

    ``bodies`` as of :func:`vitrify.frontend.flattened`.

    Raises
    ------
    CutError
        If ONNX Runtime cannot run it, it branches or loops, or it has tensors of bfloat16.
    """
    size = shape_of(model_inputs(model)[0])[0]
    flat = flattened(model, bodies=bodies)
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for node in flat.graph for attribute in node.attributes.values()
    ):
        raise CutError("it has branches or loops")
    if any(value.dtype == ir.DataType.BFLOAT16 for node in flat.graph for value in node.outputs):
        raise CutError("it has tensors of bfloat16, which NumPy lacks: export it with float32")
    if any(draws(node) for node in flat.graph):
        raise CutError("it draws random numbers, so that nothing can be compared with it")
    if isinstance(size, int):
        return Source(flat, size, size, _arrays(flat, size))
    if not any(node.op_type in _SHAPES for node in flat.graph):
        try:
            return Source(flat, None, _TRIAL, _arrays(flat, _TRIAL))
        except CutError:
            pass  # a batch of one is written into it somewhere
    flat = flattened(_of_batch_one(model), bodies=bodies)
    return Source(flat, 1, 1, _arrays(flat, 1))


def _of_batch_one(model: ir.Model) -> ir.Model:
    """A copy that takes one image a time."""
    model = model.clone()
    for value in model_inputs(model):
        set_shape(model, value, [1, *shape_of(value)[1:]])
    return model


def _arrays(model: ir.Model, images: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    feed = {
        value.name or "": _noise(type_of(value), (images, *(int(n) for n in shape_of(value)[1:])))
        for value in model_inputs(model)
    }
    try:
        found = Evaluator(model).run(feed)
    # ONNX Runtime's exceptions share no base of their own
    except Exception as error:
        raise CutError("ONNX Runtime cannot run it") from error
    _keep_constants(model, found)
    known = {name: (array.dtype, array.shape) for name, array in found.items()}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            known[name] = (value.const_value.dtype.numpy(), tuple(value.const_value.shape.numpy()))
    return {**known, **{name: (array.dtype, array.shape) for name, array in feed.items()}}


def _noise(kind: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Numbers that an input may have: integers, which may choose rows of tables, are ones."""
    if kind.kind != "f" and kind != np.uint8:
        return np.ones(shape, kind)
    noise = np.random.default_rng(0).normal(size=shape)
    return (np.abs(64 * noise) if kind == np.uint8 else noise).astype(kind)


def _keep_constants(model: ir.Model, found: Mapping[str, npt.NDArray[Any]]) -> None:
    """Replace what does not depend on the image, and was not folded, by what it is.

    Shapes are left in models only whose batch is fixed, and so are they.
    """
    for node in list(model.graph):
        results = [value for value in node.outputs if value.uses()]
        known = node.op_type in _SHAPES or all(
            value is None or value.is_initializer() for value in node.inputs
        )
        if not known or any(value.is_graph_output() for value in node.outputs):
            continue
        for value in results:
            array = found[value.name or ""]
            made = ir.Value(
                name=f"{value.name}.constant", shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                const_value=ir.tensor(array),
            )
            model.graph.register_initializer(made)
            ir.convenience.replace_all_uses_with(value, made)
        model.graph.remove(node, safe=True)


# Models of parts ---------------------------------------------------------------------------
def tensors_of(nodes: Iterable[ir.Node]) -> tuple[list[str], list[str]]:
    """What a set of nodes reads from others or from the model's inputs, and what others read."""
    inside = dict.fromkeys(nodes)
    reads: dict[str, None] = {}
    results: dict[str, None] = {}
    for node in inside:
        for value in node.inputs:
            if value is not None and not value.is_initializer() and value.producer() not in inside:
                reads[value.name or ""] = None
        for value in node.outputs:
            if value.is_graph_output() or any(use.node not in inside for use in value.uses()):
                results[value.name or ""] = None
    return list(reads), list(results)


def host_model(source: Source, reads: Sequence[str], results: Sequence[str]) -> ir.Model:
    """The nodes between two sets of tensors as a model."""
    graph = ir.convenience.extract(source.model.graph, reads, results)
    for value in (*graph.inputs, *graph.outputs):
        kind, shape = source.arrays[value.name or ""]
        value.type = ir.TensorType(ir.DataType.from_numpy(kind))
        free = source.batch is None and source.has_batch(value.name or "")
        value.shape = ir.Shape([BATCH, *shape[1:]] if free else shape)
    for values in (graph.inputs, graph.outputs):
        for place, value in enumerate(values):
            if source.is_lifted(value.name or ""):
                values[place] = _lifted(graph, value, source.shape(value.name or ""))
    return ir.Model(graph, ir_version=source.model.ir_version)


def _lifted(graph: ir.Graph, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """An input or output of a graph that holds ``value`` with an axis of images before it."""
    name, producer = value.name or "", value.producer()
    lifted = ir.Value(name=name, shape=ir.Shape(shape), type=value.type)
    value.name = f"{name}.one"
    target = shape[1:] if producer is None else shape
    form = ir.Value(
        name=f"{name}.form", shape=ir.Shape([len(target)]), type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(np.array(target, np.int64)),
    )
    graph.register_initializer(form)
    if producer is None:
        node = ir.node("Reshape", [lifted, form])
        ir.convenience.replace_all_uses_with(value, node.outputs[0])
        node.outputs[0].name = value.name
        graph.insert_before(graph[0], node)
    else:
        node = ir.node("Reshape", [value, form], outputs=[lifted])
        graph.append(node)
    node.name = f"{name}.lifted"
    return lifted


def core_model(
    source: Source, reads: Sequence[str], results: Sequence[str],
    maps: Maps | None = None,
) -> ir.Model:
    """As :func:`host_model`, with one image for everything it reads.

    The image is what :func:`vitrify.program.application.as_image` makes of the tensors, of several
    with the gains and offsets ``maps``, or with some that stand for them.
    """
    model = host_model(source, reads, results)
    axes = [source.axis(name) for name in reads]
    if axes == [1] and len(source.shape(reads[0])) == _IMAGE_RANK:
        return model
    graph, widths = model.graph, [source.channels(name) for name in reads]
    width, kind = max(widths), source.arrays[reads[0]][0]
    counts = [source.size(name) // own for name, own in zip(reads, widths, strict=True)]
    image = ir.Value(
        name=f"{reads[0]}.image", type=graph.inputs[0].type,
        shape=ir.Shape([BATCH if source.batch is None else source.images, width, sum(counts), 1]),
    )
    nodes: list[ir.Node] = []

    def op(op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes or None)
        node.name = node.outputs[0].name = f"{image.name}.{len(nodes)}"
        nodes.append(node)
        return node.outputs[0]

    def constant(array: npt.NDArray[Any]) -> ir.Value:
        made = ir.Value(
            name=f"{image.name}.constant{len(graph.initializers)}", shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)), const_value=ir.tensor(array),
        )
        graph.register_initializer(made)
        return made

    def numbers(*values: int) -> ir.Value:
        return constant(np.array(values, np.int64))

    lines, at = image, 0
    if len(reads) > 1:
        # several readers would be several embeddings of the image, of which the core has one
        same = np.eye(width, dtype=kind)[..., None, None]
        lines = op("Conv", image, constant(same))
    lines = op("Reshape", lines, numbers(0, width, sum(counts)))
    for value, own, count, axis in zip(list(graph.inputs), widths, counts, axes, strict=True):
        part = op("Slice", lines, numbers(0, at), numbers(own, at + count), numbers(1, 2))
        at += count
        shape = source.shape(value.name or "")
        # the channels are the second axis, and go back to where they were
        rest = [place for place in range(1, len(shape)) if place != axis]
        part = op("Reshape", part, numbers(0, own, *(shape[place] for place in rest)))
        if len(reads) > 1:
            gain, offset = maps[value.name or ""] if maps else stand_in(at, own)
            form = (1, own, *(1 for _ in rest))
            part = op("Mul", part, constant((1 / gain).reshape(form).astype(kind)))
            part = op("Add", part, constant((-offset / gain).reshape(form).astype(kind)))
        part = op("Transpose", part, perm=np.argsort([0, axis, *rest]).tolist())
        ir.convenience.replace_all_uses_with(value, part)
    graph.inputs[:] = [image]
    first = graph[0]
    graph.insert_before(first, nodes)
    return model


def boundary(
    source: Source, names: Iterable[str], feed: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Tensors of the model for inputs ``[N, …]``, N along the first axis of each."""
    inner = sorted({*names} - feed.keys())
    machine = Evaluator(source.model, inner)

    def run(feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        return [
            array[None] if source.is_lifted(name) else array
            for name, array in machine.run(feed).items()
        ]

    made = in_batches(run, feed, source.batch)
    return {**dict(zip(inner, made, strict=True)), **feed}
