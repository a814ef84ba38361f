"""Replacing nodes of a model before it is traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Value = ir.Value | None


def constant_of(value: Value) -> np.ndarray | None:
    """The numbers behind a value, when it is an initializer or the result of a Constant."""
    stored = None if value is None else ir.convenience.get_const_tensor(value)
    return None if stored is None else stored.numpy()


#: Operators around the one that does a node's work.
_HELPERS = (
    "QuantizeLinear", "DequantizeLinear", "Cast", "Sub", "Div", "Flatten", "Shape", "Identity",
)  # fmt: skip


class Editor:
    """Puts nodes before one that they are to replace.

    Parameters
    ----------
    node:
        The node; :meth:`replace` drops it.
    """

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph = graph
        self.node = node
        self._named = False
        #: Its inputs; an absent one is ``None``, however many there are.
        self.inputs: list[Value] = [*node.inputs, *[None] * 12][:12]

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def op(self, op_type: str, *inputs: Value, domain: str = "", **attributes: Any) -> ir.Value:
        """The result of a new node, named like the old one."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        made = ir.node(op_type, given, attributes, domain=domain)
        made.outputs[0].name = self.free(f"{self.node.outputs[0].name}_{op_type}")
        # what does the node's work is called after it, and ONNX Runtime wants all names to differ
        main = op_type not in _HELPERS and not self._named
        self._named = self._named or main
        made.name = self.node.name if main else f"{self.node.name}/{made.outputs[0].name}"
        self.graph.insert_before(self.node, made)
        return made.outputs[0]

    def constant(self, array: np.ndarray | float, name: str = "") -> ir.Value:
        """A new initializer; floats are float32."""
        data = np.asarray(array)
        if data.dtype == np.float64:
            data = data.astype(np.float32)
        name = self.free(name or f"{self.node.outputs[0].name}_constant")
        value = ir.Value(
            name=name,
            shape=ir.Shape(data.shape),
            type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
            const_value=ir.tensor(data, name=name),
        )
        self.graph.register_initializer(value)
        return value

    def replace(self, *results: Value) -> None:
        """Drop the node; its outputs become ``results``, ``None`` for one that nothing uses."""
        for old, new in zip(self.node.outputs, results, strict=False):
            if new is None:
                continue
            if old.is_graph_output():
                # an output keeps its name, and two outputs never become one value
                new = self.op("Identity", new)
                new.name, old.name = old.name, f"{old.name}_replaced"
                new.shape, new.type = old.shape, old.type
                new.meta.update(old.meta)
            elif new.name and old.name and not new.is_graph_input() and new.const_value is None:
                new.shape = new.shape or old.shape
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)

    def free(self, name: str) -> str:
        """A name that no other value has."""
        taken = self.graph.meta.get("names")
        if taken is None:
            taken = {value.name for node in self.graph for value in node.outputs}
            taken |= {value.name for value in self.graph.inputs} | set(self.graph.initializers)
            self.graph.meta["names"] = taken
        free, count = name, 1
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        taken.add(free)
        return free


#: From a node to its results, or ``None`` to leave it.
Rule = Callable[[Editor], Sequence[Value] | None]


def rewrite(model: ir.Model, rules: Mapping[tuple[str, str], Rule]) -> None:
    """Replace every node that has a rule for its (domain, operator)."""
    model.graph.meta.pop("names", None)
    for node in list(model.graph):
        rule = rules.get((node.domain, node.op_type))
        if rule is not None:
            edit = Editor(model.graph, node)
            results = rule(edit)
            if results is not None:
                edit.replace(*results)
