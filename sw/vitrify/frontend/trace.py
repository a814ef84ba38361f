"""The tracer: walks the original graph and asks one handler per ONNX operator.

Handlers live in the ``on_*.py`` modules and register themselves with :func:`handles`; one for a
kind of values goes before the general one of its operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from vitrify.arch.errors import UnsupportedOpError, VitrifyError
from vitrify.ir import ARRANGE, BATCH, Builder, ShapeError, shape_of, steps_of, tensor

from .fold import is_cheap
from .inputs import image_input, task_inputs
from .mixed import Gate, Gating, Mixture, Picked, Stack
from .outputs import formed
from .randomness import draws
from .reference import run_node, runs, widened
from .rows import Settler
from .values import CONSTANT, Const, Traced, Unfit, View, whole

#: Batch sizes to trace a model of dynamic batch with: two tells the batch from other axes of one;
#: a model whose reshapes hold a batch of one all the same is traced with one.
TRIAL_BATCHES = (2, 1)

#: What a handler raises about a node; anything else is a bug, unless the node breaks ONNX's rules.
_FINDINGS = (Unfit, ShapeError)

Handler = Callable[["Tracer", ir.Node, list[Traced | None]], list[Traced]]
HANDLERS: dict[tuple[str, str, type | None], Handler] = {}
#: Kinds with handlers of their own, first the one that decides when several meet in a node.
KINDS: tuple[type, ...] = (Picked, Stack, Mixture, Gating)
#: Stands for every operator that a kind has no handler of its own for.
ANY = "*"


def handles(
    *op_types: str, domain: str = "", kind: type | None = None
) -> Callable[[Handler], Handler]:
    """Register a handler for ONNX operators, of one kind of inputs when it is given."""

    def register(handler: Handler) -> Handler:
        for op_type in op_types:
            HANDLERS[domain, op_type, kind] = handler
        return handler

    return register


def handler_of(node: ir.Node, inputs: Iterable[Traced | None]) -> Handler | None:
    """The handler for a node with such inputs."""
    types = {type(value) for value in inputs}
    domain = node.domain
    for kind in KINDS:
        if kind in types and domain == "":
            found = HANDLERS.get((domain, node.op_type, kind)) or HANDLERS.get((domain, ANY, kind))
            if found is not None:
                return found
    return HANDLERS.get((domain, node.op_type, None))


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Value of an attribute, or its default."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def constant(value: Traced | None, what: str) -> Const:
    """The constant, or :class:`Unfit` naming what should have been one."""
    if not isinstance(value, Const):
        raise Unfit(f"its {what} is computed from the image, not a constant")
    return value


class Tracer:
    """One symbolic execution of a model.

    Parameters
    ----------
    model:
        Folded and fused, see :mod:`vitrify.frontend.canonicalise`.
    batch:
        Number of images to trace with.
    plain:
        Whether a softmax of something else than attention scores is always just a softmax, and
        not the decision of a router.
    """

    def __init__(self, model: ir.Model, batch: int, *, plain: bool = False) -> None:
        self.model = model
        self.batch = batch
        self.opsets = dict(model.opset_imports)
        source = image_input(model)
        pixels = source.dtype is not None and not source.dtype.is_floating_point()
        dtype = ir.DataType.UINT8 if pixels else ir.DataType.FLOAT
        self.image = tensor(source.name or "image", [BATCH, *shape_of(source)[1:]], dtype)
        tasks = {task: self._task(task, shape_of(source)[0]) for task in task_inputs(model)}
        self.builder = Builder([self.image, *tasks.values()], name=model.graph.name or "canonical")
        self.settler = Settler(self.builder, self.image, batch)
        #: No softmax belongs to a router.
        self.plain = plain
        #: The gates of routers, by the tensor of their logits.
        self.gates: dict[ir.Value, Gate] = {}
        self.known: dict[ir.Value, Traced] = {source: whole(self.image, batch)}
        for original, task in tasks.items():
            count = batch if shape_of(task) == (BATCH,) else 1
            self.known[original] = View(
                task, np.arange(count).reshape([count] * len(shape_of(task)))
            )
        for name, value in model.graph.initializers.items():
            if value.const_value is not None:
                self.known[value] = Const(widened(value.const_value.numpy()), name)

    @staticmethod
    def _task(task: ir.Value, batch: int | str) -> ir.Value:
        """The input of the canonical graph for a task input of the model."""
        one_for_all = shape_of(task) == (1,) and batch != 1
        shape = shape_of(task) if one_for_all else [BATCH] * len(shape_of(task))
        return tensor(task.name or "task", shape, ir.DataType.INT64)

    def execute(self, node: ir.Node, arrays: Iterable[np.ndarray | None]) -> list[np.ndarray]:
        """Run one node on known numbers."""
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            raise Unfit("it is a branch or a loop", "export the model without control flow")
        try:
            return run_node(node, list(arrays), self.opsets)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            raise Unfit("its inputs do not fit it") from error

    def view(self, value: Traced | None) -> View:
        """``value`` as a view, emitting what it still needs; scores and constants are none."""
        from .on_elementwise import resolve

        if value is None:
            raise Unfit("it lacks an input")
        return resolve(self, value)

    def trace_node(self, node: ir.Node) -> list[Traced]:
        """What the outputs of ``node`` are."""
        inputs = [None if value is None else self._known(value) for value in node.inputs]
        if draws(node):
            raise Unfit(
                "it draws random numbers, and a program gives one answer for an image",
                "export the model in inference mode, and a masked autoencoder without its masking"
            )
        handler = handler_of(node, inputs)
        given = [value for value in inputs if value is not None]
        if all(isinstance(value, Const) for value in given) and node.domain == "":
            arrays = [value.array if isinstance(value, Const) else None for value in inputs]
            return [Const(result) for result in self.execute(node, arrays)]
        if handler is None:
            raise Unfit("no operation of a vision transformer is made of it")
        return handler(self, node, inputs)

    def _known(self, value: ir.Value) -> Traced:
        """What ``value`` is; :class:`Unfit` if the operator that makes it is not read so far."""
        maker = value.producer()
        if value not in self.known and maker is not None:
            raise Unfit(
                f"it reads {value.name!r}, output {value.index()} of a {maker.op_type}, of which "
                f"only the main result is read",
                "export the model without that output",
            )
        return self.known[value]

    def run(self) -> ir.Model:
        """Trace everything and return the canonical model."""
        last = {value: node for node in self.model.graph for value in node.inputs}
        for node in self.model.graph:
            self.settler.source = node.name
            try:
                results = self.trace_node(node)
            except _FINDINGS as error:
                raise unsupported(node, error) from error
            except VitrifyError:
                raise
            except Exception as error:
                self._judge(node, error)
                raise
            self.known.update(zip(node.outputs, results, strict=False))
            for value in node.inputs:
                # views are as large as activations: let go of each after its last use
                if value is not None and last[value] is node and not value.is_graph_output():
                    self.known.pop(value, None)
        outputs: list[ir.Value] = []
        for value in self.model.graph.outputs:
            outputs.append(self._output(value, outputs))
        return self.builder.model(outputs)

    def _judge(self, node: ir.Node, error: Exception) -> None:
        """Blame the model, when ONNX Runtime cannot execute ``node`` on such inputs either."""
        arrays: list[np.ndarray | None] = []
        for place in node.inputs:
            value = None if place is None else self.known[place]
            try:
                none = None if value is None else np.zeros(value.shape, np.float32)
            except Unfit:
                return
            arrays.append(value.array if isinstance(value, Const) else none)
        if not runs(node, arrays, self.opsets):
            reason = "its inputs or attributes do not fit it"
            fix = "the model may be damaged, export or download it again"
            raise unsupported(node, Unfit(reason, fix)) from error

    def _output(self, value: ir.Value, taken: list[ir.Value]) -> ir.Value:
        node = value.producer()
        if node is None:
            raise UnsupportedOpError(
                f"Output {value.name!r} of the model does not depend on its image; export the "
                f"model without it."
            )
        try:
            known = self._known(value)
            if isinstance(known, Gating):
                raise Unfit(
                    f"its {known.node.op_type} is part of an output of the model",
                    f"end the model at the logits and apply the {known.node.op_type} to its output",
                    known.node,
                )
            view = self.view(known)
            if view.base.producer() is None:
                raise Unfit("its result is an output of the model, but an input as well")
            result = self._whole(view)
            if result is None or result in taken:
                result = self._arranged(view) or formed(self, view)
            if result in taken:
                raise Unfit("two outputs of the model are the same tensor")
        except _FINDINGS as error:
            raise unsupported(node, error) from error
        return result

    def _whole(self, view: View) -> ir.Value | None:
        """The canonical tensor that ``view`` is, all of it and in order, or ``None``."""
        if (view.mul is not None or view.add is not None) and not is_cheap(view.base):
            return None
        try:
            result, rows = self.settler.settle(view, strict=True)
        except Unfit:
            return None
        sizes = (self.batch, *(int(size) for size in shape_of(result)[1:]))
        order = np.array_equal(rows.ravel(), np.arange(rows.size))
        return result if order and view.shape == sizes else None

    def _arranged(self, view: View) -> ir.Value | None:
        """A slice, reshape or transposition of a scaled canonical tensor, or ``None``."""
        base, index = view.base, view.index
        size = int(np.prod([int(dim) for dim in shape_of(base)[1:]]))
        if (index == CONSTANT).any() or index.shape[:1] != (self.batch,):
            return None
        number = np.arange(self.batch).reshape(-1, *(1,) * (index.ndim - 1)) * size
        first = index[0]
        if not np.array_equal(index, first + number) or first.size > size:
            return None
        if steps_of(first) is None:
            return None
        width = int(shape_of(base)[-1])
        try:
            mul, add = self.settler.channelwise(view)
        except Unfit:
            return None
        return self.settler.emit(
            ARRANGE, base, np.ones(width) if mul is None else mul,
            np.zeros(width) if add is None else add,
            index=first.ravel().tolist(), form=list(first.shape),
        )  # fmt: skip


def unsupported(node: ir.Node | None, error: Exception) -> UnsupportedOpError:
    """The error a user sees: node, operator, reason, way out."""
    reason, fix = str(error), "export the model without it"
    if isinstance(error, Unfit):
        fix, node = error.fix, error.node or node
    assert node is not None, "who raises knows the node"
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return UnsupportedOpError(
        f"Node '{node.name}' ({kind}) is not supported: {reason}; {fix}.", node.name or ""
    )


def trace(model: ir.Model) -> ir.Model:
    """The canonical model of a folded and fused one."""
    size = shape_of(image_input(model))[0]
    batches = (size,) if isinstance(size, int) else TRIAL_BATCHES
    softmax = any(node.op_type == "Softmax" for node in model.graph)
    plainly = (False, True) if softmax else (False,)
    trials = [(batch, plain) for batch in batches for plain in plainly]
    first: UnsupportedOpError | None = None
    for batch, plain in trials:
        try:
            return Tracer(model, batch, plain=plain).run()
        except UnsupportedOpError as error:
            first = first or error
    assert first is not None, "there is a batch to try"
    raise first
