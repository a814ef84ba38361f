"""Normalisations in the plan: a transform of what reads the stream, no op of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.linear.plan import LinearValue, Stored, copy_stream
from vitrify.ops.transpose.plan import OverTokens
from vitrify.quant.normaliser import Normaliser
from vitrify.quant.plan import Array, ReadNorm
from vitrify.quant.planner import Planner, parameter, result_of

from .layer_norm import LayerNorm, RMSNorm


def plan_layer_norm(planner: Planner, node: ir.Node) -> Stored:
    """``LayerNorm``: whoever reads the int16 tensor applies it."""
    normaliser = LayerNorm(attributes_of(node)["epsilon"])
    return _read(planner, node, normaliser, parameter(node, 2))


def plan_rms_norm(planner: Planner, node: ir.Node) -> LinearValue:
    """``RMSNorm`` of all channels of a row, likewise; over tokens, of what is transposed."""
    attributes, gamma = attributes_of(node), parameter(node, 1)
    if attributes["axis"] == "tokens":
        epsilon = attributes["epsilon"]
        return OverTokens(
            planner.of(node, 0), node, attributes["groups"], RMSNorm(epsilon), epsilon,
            float(gamma[0]),
        )
    return _read(planner, node, RMSNorm(attributes["epsilon"]), np.zeros(len(gamma)))


def _read(planner: Planner, node: ir.Node, normaliser: Normaliser, beta: Array) -> Stored:
    """Rows have one kind of statistics, and if they are made head by head, none: else a copy's."""
    norm = ReadNorm(node.name or "", parameter(node, 1), beta, normaliser)
    stream = planner.of(node, 0).stream(planner, node)
    known = planner.normalisers.setdefault(stream.read, normaliser)
    if known != normaliser or planner.groups.get(stream.tensor, 1) > 1:
        stream = copy_stream(planner, stream)
        planner.normalisers[stream.read] = normaliser
    return Stored(replace(stream, norm=norm, made=(result_of(node), None)))
