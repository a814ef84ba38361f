"""The one assertion of this folder: a canonical graph computes what the original computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from vitrify.frontend import canonicalise
from vitrify.ir import evaluate, verify

#: Largest deviation, relative to the largest output.
TOLERANCE = 1e-4


def kinds(model: ir.Model) -> list[str]:
    """Operations of a canonical graph, in order."""
    return [node.op_type for node in model.graph]


def within(wanted: list[str], found: list[str]) -> bool:
    """Whether operations are among others, in this order."""
    rest = iter(found)
    return all(kind in rest for kind in wanted)


def assert_agrees(
    model: ir.Model, feeds: Mapping[str, np.ndarray], *, tolerance: float = TOLERANCE
) -> ir.Model:
    """Canonicalise, compare under ONNX Runtime, return the canonical graph."""
    names = [value.name or "" for value in model.graph.outputs]
    canonical = canonicalise(model)
    verify(canonical)
    assert [value.name for value in canonical.graph.outputs] == names
    assert [value.name for value in canonical.graph.inputs] == list(feeds)
    wanted = evaluate(model, feeds, names)
    found = evaluate(canonical, feeds, names)
    for name in names:
        assert found[name].shape == wanted[name].shape, name
        scale = np.abs(wanted[name]).max()
        assert scale > 0.01, f"{name} is too small to compare"
        if len(wanted[name]) > 1:
            spread = np.ptp(wanted[name], axis=0).max()
            assert spread > 1e-3 * scale, f"{name} ignores the image"
        deviation = np.abs(found[name] - wanted[name]).max() / scale
        assert deviation <= tolerance, f"{name} deviates by {deviation:.2e}"
    return canonical
