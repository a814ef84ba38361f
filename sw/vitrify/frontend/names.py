"""Readable, stable names for the canonical graph, after the modules it was exported from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import onnx_ir as ir

from vitrify.ir import OPS

from .fold import hints_of

#: Names that exporters invent: numbers, ``onnx::MatMul_986``, ``val_12``, ``/Expand_output_0``.
_INVENTED = re.compile(r"^(onnx::.*|val_\d+.*|\d+|.*_output_\d+.*|_.*|node_.*)$")
_PARAMETER = re.compile(
    r"[._](weight|bias|kernel|gamma|beta|scale|weight_quantized|weight_transposed)$"
)
#: Parameters that are no member of a layer: they name the tokens.
_TOKEN_WORDS = re.compile(r"(?i)(pos|cls|class|dist|token|regist)")
#: Module names of a fused QKV; attention is named after their parent.
_FUSED = ("qkv", "in_proj", "query_key_value", "q", "k", "v")


def _from_hint(hint: str) -> str:
    """A module name from the name of a weight or a node; empty when it says nothing."""
    if "/" in hint:
        # TorchScript: /blocks.0/attn/qkv/MatMul
        parts = [part for part in hint.split("/") if part][:-1]
        inner = [*parts[1:], ""] if parts else []
        # the scope of a module in a list repeats the list: /blocks/blocks.0
        parts = [part for part, after in zip(parts, inner, strict=True) if not _in(after, part)]
        return "" if "_output_" in hint else ".".join(parts)
    if _INVENTED.match(hint):
        return ""
    return _PARAMETER.sub("", hint)


def _in(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _common_module(names: list[str]) -> str:
    """The innermost module that contains all the names."""
    parts = zip(*(_parent(name).split(".") for name in names), strict=False)
    return ".".join(
        same[0] for same in itertools.takewhile(lambda part: len(set(part)) == 1, parts)
    )


def _join(parent: str, leaf: str) -> str:
    return f"{parent}.{leaf}" if parent else leaf


def _best(hints: Iterable[str]) -> str:
    found = [name for name in map(_from_hint, hints) if name]
    # a LayerScale folded into a layer must not rename it: the first real weight wins
    return found[0] if found else ""


def _own_name(node: ir.Node) -> str:
    hints = hints_of(node.outputs[0])
    match node.op_type:
        case "Tokens":
            words = [hint for hint in hints if _TOKEN_WORDS.search(hint)]
            return _join(_parent(_best(words)), "tokens")
        case (
            "Linear" | "LayerNorm" | "PatchEmbed" | "TaskLinear" | "Conv" | "ImageConv" | "RMSNorm"
        ):
            return _best(sorted(hints, key=lambda hint: not hint.endswith((".bias", ".weight"))))
    return ""


def _branch(node: ir.Node) -> str:
    """Name of the operand of a residual addition that is not the residual stream."""
    operands = [value for value in node.inputs if value is not None]
    last = ("Linear", "Experts")
    linear = [v for v in operands if (p := v.producer()) is not None and p.op_type in last]
    return (linear or operands)[-1].name or ""


def _consumer_name(node: ir.Node) -> str:
    """Own name of the layer that uses the node's result, when that is a single one."""
    consumers = list(node.outputs[0].consumers())
    return _own_name(consumers[0]) if len(consumers) == 1 else ""


def _experts_name(node: ir.Node) -> str:
    """The innermost module that all the experts' weights are in."""
    found = [name for name in map(_from_hint, hints_of(node.outputs[0])) if name]
    module = _common_module(found) if found else ""
    return module if module.rpartition(".")[2] == "experts" else _join(module, "experts")


def _derived_name(node: ir.Node) -> str:
    """A name from those of the inputs, which have theirs already."""
    inputs = [value.name or "" for value in node.inputs if value is not None]
    match node.op_type:
        case "Attention" | "CrossAttention" | "RelativeAttention" | "RoutedHeads" | "BalancedHeads":
            module = _common_module(inputs[:3]) or _parent(_consumer_name(node))
            while module.rpartition(".")[2] in _FUSED:
                module = _parent(module)
            return _join(module, "attention")
        case "Activation":
            return _join(_parent(inputs[0]), "act")
        case "Experts":
            return _experts_name(node)
        case "Add":
            return _join(_parent(_branch(node)), "add")
        case "SelectToken":
            return "select_token"
        case "MeanPool":
            return "mean_pool"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.op_type).lower()


def _operand_names(graph: ir.Graph) -> dict[ir.Value, str]:
    """Names of q, k and v for projections of one fused layer, or of layers without a name.

    Gates without a name of their own are called after their experts.
    """
    names: dict[ir.Value, str] = {}
    for node in graph:
        if node.op_type == "Experts" and node.inputs[1] is not None:
            gate = node.inputs[1].producer()
            if gate is not None and not _own_name(gate):
                names[gate.outputs[0]] = _join(_parent(_experts_name(node)), "gate")
        if node.op_type not in ("Attention", "RoutedHeads", "BalancedHeads"):
            continue
        operands = [value for value in node.inputs[:3] if value is not None]
        own = [_own_name(p) if (p := value.producer()) else "" for value in operands]
        if len(set(own)) == len(own) and all(own):
            continue
        for value, name, leaf in zip(operands, own, "qkv", strict=True):
            module = _parent(name) if name.rpartition(".")[2] in _FUSED else name
            names[value] = _join(module or _parent(_consumer_name(node)), leaf)
    return names


def rename(model: ir.Model) -> None:
    """Name every node, its output and its parameters, in place.

    Graph outputs keep their names; every other tensor is called after its node.
    """
    graph = model.graph
    operands = _operand_names(graph)
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    used: dict[str, int] = {}
    parameters = list(graph.initializers.values())
    graph.initializers.clear()
    for node in graph:
        output = node.outputs[0]
        name = operands.get(output) or _own_name(node) or _derived_name(node)
        while name in taken or name in used:
            used[name] = used.get(name, 1) + 1
            name = f"{name}_{used[name]}"
        used[name] = 1
        node.name = name
        if not output.is_graph_output():
            output.name = name
        for formal, value in zip(OPS[node.op_type].inputs, node.inputs, strict=True):
            if value is not None and value.const_value is not None:
                value.name = value.const_value.name = f"{name}.{formal}"
    for value in parameters:
        if value.uses():
            graph.register_initializer(value)
