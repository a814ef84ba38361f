"""Weights that are no numbers, or that no layer can compute with, named as the user named them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from vitrify.arch.errors import ModelError
from vitrify.ir import array_of

from .fold import hints_of

#: Largest weight of a layer: the square of what it makes is still a float32.
LARGEST_WEIGHT = 1e12


class WeightError(ModelError):
    """A weight is no number, or far too large."""


def _weights(model: ir.Model) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in model.graph.initializers.items():
        stored = value.const_value
        if stored is not None and stored.dtype.is_floating_point() and stored.size:
            yield name, stored.numpy().astype(np.float32, copy=False)


def check_weights(model: ir.Model) -> None:
    """Raise :class:`WeightError` for a weight that is no number; masks may be infinite."""
    for name, array in _weights(model):
        if np.isnan(array).any():
            raise WeightError(
                f"Weight '{name}' holds {int(np.isnan(array).sum())} NaN of {array.size} numbers; "
                "export the model again from sound weights."
            )


def check_parameters(canonical: ir.Model, source: ir.Model) -> None:
    """Raise :class:`WeightError` for a layer of ``canonical`` whose parameters are too large.

    ``source`` is the model it was traced from: its weight is named where one is to blame.
    """
    for node in canonical.graph:
        for value in node.inputs:
            if value is None or value.const_value is None:
                continue
            peak = float(np.abs(array_of(value)).max(initial=0.0))
            if peak <= LARGEST_WEIGHT:
                continue
            hints = hints_of(node.outputs[0])
            found = dict(_weights(source))
            large = [name for name, array in found.items() if np.abs(array).max() > LARGEST_WEIGHT]
            name = next((hint for hint in hints if hint in large), (large or hints or ("",))[0])
            raise WeightError(
                f"Weight '{name}' makes a layer with the weight {peak:.3g}, and {LARGEST_WEIGHT:g} "
                "is the most that can be computed with; export the model again from sound weights."
            )
