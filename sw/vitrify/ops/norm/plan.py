"""Normalisations in the plan: a transform of what reads the stream, no op of their own."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.linear.plan import Stored
from vitrify.quant.plan import ReadNorm
from vitrify.quant.planner import Planner, parameter, result_of

from .layer_norm import LayerNorm


def plan_layer_norm(planner: Planner, node: ir.Node) -> Stored:
    """``LayerNorm``: whoever reads the int16 tensor applies it."""
    norm = ReadNorm(
        node.name or "", result_of(node), parameter(node, 1), parameter(node, 2),
        LayerNorm(attributes_of(node)["epsilon"]),
    )
    return Stored(replace(planner.of(node, 0).stream(planner, node), norm=norm))
