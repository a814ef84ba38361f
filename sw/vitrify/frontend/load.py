"""Reading an ONNX file, with one clear sentence for everything that can be wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import TopologicalSortPass

from vitrify.arch.errors import ModelError

from .entrance import normalise
from .inputs import image_input, inputs_of, model_inputs, takes_image
from .size import Sizes, set_sizes

#: Operator sets older than this spell shapes in ways the frontend does not read.
OLDEST_OPSET = 11


class ModelFileError(ModelError):
    """The file is missing or is no ONNX model."""


class ExternalDataError(ModelError):
    """The weights that the model keeps in another file are missing or cut short."""


class OpsetError(ModelError):
    """The model is written in an operator set that is too old."""


def _read(path: Path) -> ir.Model:
    if not path.exists():
        raise ModelFileError(f"Model file '{path}' does not exist; check the path.")
    if not path.is_file():
        raise ModelFileError(f"'{path}' is no file; give the path of an .onnx file.")
    if path.stat().st_size == 0:
        raise ModelFileError(f"Model file '{path}' is empty; export or download it again.")
    broken = f"Model file '{path}' is no ONNX model or is damaged; export or download it again."
    try:
        # absolute: beside a bare file name the reader would let data lie anywhere
        model = ir.load(path.absolute(), format="protobuf")
    except Exception as error:
        # the reader raises whatever it stumbles over
        raise ModelFileError(broken) from error
    if len(model.graph) == 0 or not model.graph.outputs or not model.opset_imports:
        raise ModelFileError(broken)
    # protobuf gives text that is no UTF-8 as bytes
    if any(isinstance(name, bytes) for name in _texts(model)):
        raise ModelFileError(broken)
    return model


def _texts(model: ir.Model) -> Iterator[object]:
    """Every name in a model."""
    for graph in (model.graph, *model.functions.values()):
        for value in graph.inputs:
            yield value.name
        for node in ir.traversal.RecursiveGraphIterator(graph):
            yield from (node.name, node.domain, node.op_type, *node.attributes)
            yield from (value.name for value in (*node.inputs, *node.outputs) if value is not None)


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Every constant of a model with a name for it: weights, and those that are attributes."""
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            yield name, value.const_value
    for graph in (model.graph, *model.functions.values()):
        for node in ir.traversal.RecursiveGraphIterator(graph):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and attribute.value is not None:
                    yield node.name or node.op_type, attribute.value


def _check_weights(path: Path, model: ir.Model) -> None:
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            raise ModelFileError(
                f"Weight '{name}' of '{path}' has no data; export or download the model again."
            )
    for name, stored in _tensors(model):
        if isinstance(stored, ir.ExternalTensor):
            _check_external(path, name, stored)
        else:
            try:
                stored.numpy()
            except (RuntimeError, TypeError, ValueError) as error:
                raise ModelFileError(
                    f"Weight '{name}' of '{path}' is damaged; export or download the model again."
                ) from error


def _check_external(path: Path, name: str, stored: ir.ExternalTensor) -> None:
    """Where an external weight lies, before anything of it is read."""
    inside = os.path.normpath(stored.location)
    if Path(inside).is_absolute() or inside.partition(os.sep)[0] == os.pardir:
        raise ExternalDataError(
            f"Weight '{name}' of '{path}' is in '{stored.location}', outside the model's folder; "
            "export the model with its data beside it."
        )
    file = path.parent / inside
    if not file.is_file():
        raise ExternalDataError(
            f"Weight '{name}' of '{path}' is in '{file}', which does not exist; "
            "put that file beside the model."
        )
    if file.stat().st_size < (stored.offset or 0) + stored.nbytes:
        raise ExternalDataError(
            f"'{file}' ends before weight '{name}' of '{path}'; copy that file again."
        )
    try:
        stored.numpy()
    except ValueError as error:
        raise ExternalDataError(
            f"Weight '{name}' of '{path}' is in '{file}', a link to a file elsewhere; "
            "copy that file itself beside the model."
        ) from error


def check_wiring(model: ir.Model) -> None:
    """Raise :class:`ModelFileError` when a node uses a tensor that nothing makes."""
    known = {*model.graph.inputs, *model.graph.initializers.values()}
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.producer() is None and value not in known:
                raise ModelFileError(
                    f"Input '{value.name}' of node '{node.name}' ({node.op_type}) is made by "
                    "nothing; the model is damaged, export or download it again."
                )
    for value in model.graph.outputs:
        if value.producer() is None:
            raise ModelFileError(
                f"Output '{value.name}' of the model is made by nothing; "
                "the model is damaged, export or download it again."
            )


def _sort(path: Path, model: ir.Model) -> None:
    """Put nodes after what they read: some converters append them out of order."""
    try:
        TopologicalSortPass()(model)
    except ValueError as error:
        node = _in_a_circle(model)
        who = f"Node '{node.name}' ({node.op_type})" if node else "A node"
        raise ModelFileError(
            f"{who} of '{path}' needs its own result, by way of others; "
            "the model is damaged, export or download it again."
        ) from error


def _in_a_circle(model: ir.Model) -> ir.Node | None:
    """A node that depends on itself; ``None`` when that goes through a graph inside a node."""
    waiting = {node: len({*node.predecessors()}) for node in model.graph}
    ready = [node for node, count in waiting.items() if not count]
    while ready:
        for follower in waiting.keys() & set(ready.pop().successors()):
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    seen: set[ir.Node] = set()
    node = next((node for node, count in waiting.items() if count), None)
    while node is not None and node not in seen:
        seen.add(node)
        node = next((before for before in node.predecessors() if waiting.get(before)), None)
    return node


def load(
    path: str | Path, size: Sizes | None = None, *, any_inputs: bool = False
) -> ir.Model:
    """Read an ONNX vision transformer.

    Parameters
    ----------
    path:
        An ``.onnx`` file; external data is looked for beside it.
    size:
        Channels, height and width of the image, where the model leaves them open; or the sizes of
        any inputs by their names, without the batch.
    any_inputs:
        Whether it may take something else than one image.

    Returns
    -------
    onnx_ir.Model
        The model as exported, weights lazily loaded; its image is ``[N, C, H, W]``, see
        :func:`vitrify.frontend.entrance.normalise`.

    Raises
    ------
    ModelError
        One of its subclasses, with one sentence that says what to do.
    """
    path = Path(path)
    model = _read(path)
    opset = model.opset_imports.get("", OLDEST_OPSET)
    if opset < OLDEST_OPSET:
        raise OpsetError(
            f"'{path}' is written in opset {opset}, but {OLDEST_OPSET} is the oldest understood; "
            "export it with a newer opset."
        )
    _check_weights(path, model)
    check_wiring(model)
    _sort(path, model)
    # old exporters list the weights among the inputs, so that others might be given
    model.graph.inputs[:] = inputs_of(model)
    if size is not None:
        set_sizes(model, size)
    whole = not any_inputs or takes_image(model)
    for value in [image_input(model)] if whole else model_inputs(model):
        normalise(model, value)
    return model
