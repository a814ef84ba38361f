"""What random networks are put together from: a builder, a generator, layers in one word."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from vitrify.ir import BATCH, Builder, shape_of, tensor
from vitrify.ir.unary import UNARY

TASKS = 3


class Pieces:
    """Layers with random weights that keep values of order one.

    Parameters
    ----------
    rng : decides everything
    experts : most experts of a mixture; 0 for none
    """

    def __init__(self, rng: np.random.Generator, experts: int) -> None:
        self.rng, self.experts = rng, experts
        self.patch = (self.pick(1, 2, 3, 4), self.pick(1, 2, 4))
        grid = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        self.size = (self.pick(1, 2, 3, 4), grid[0] * self.patch[0], grid[1] * self.patch[1])
        self.heads = self.pick(1, 1, 2, 2, 3, 4)
        self.image = tensor("image", (BATCH, *self.size))
        self.task = tensor("task", (BATCH,), ir.DataType.INT64)
        self.builder = Builder([self.image], name="net")
        #: Rows of one stream are normalised in one way, so that most networks have but one.
        self.usual_norm = "LayerNorm" if self.chance(0.7) else "RMSNorm"
        self._count = 0

    # Chance
    def pick(self, *choices: int) -> int:
        return int(self.rng.choice(choices))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def divisor(self, number: int) -> int:
        return self.pick(*(n for n in range(1, number + 1) if number % n == 0))

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    def images(self, count: int) -> np.ndarray:
        return self.normal(count, *self.size)

    # Nodes
    def emit(self, op: str, *inputs: ir.Value | np.ndarray, **attributes: Any) -> ir.Value:
        """A node with a name of its own."""
        self._count += 1
        return self.builder.emit(op, *inputs, name=f"{op.lower()}{self._count}", **attributes)

    def norm(self, x: ir.Value) -> ir.Value:
        dim = channels(x)
        gamma = 1 + 0.3 * self.normal(dim)
        if self.usual_norm == "RMSNorm" and len(shape_of(x)) == 3:
            return self.emit("RMSNorm", x, gamma, axis="channels", groups=1, epsilon=1e-5)
        return self.emit("LayerNorm", x, gamma, 0.3 * self.normal(dim), epsilon=1e-5)

    def linear(self, x: ir.Value, out: int, gain: float = 1.0) -> ir.Value:
        inner = channels(x)
        return self.emit(
            "Linear", x, gain * self.normal(out, inner) / np.sqrt(inner), 0.3 * self.normal(out))

    def activation(self, x: ir.Value, kind: str = "") -> ir.Value:
        return self.emit("Activation", x, kind=kind or str(self.rng.choice(list(UNARY))))

    def add(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.emit("Add", *((x, y) if self.chance(0.7) else (y, x)))

    def rows(self, x: ir.Value, index: np.ndarray) -> ir.Value:
        return self.emit("Rows", x, index=[int(i) for i in index])

    def select(self, x: ir.Value) -> ir.Value:
        return self.emit("SelectToken", x, index=int(self.rng.integers(rows(x))))


def rows(x: ir.Value) -> int:
    """Rows of tokens ``[N, T, D]``."""
    return int(shape_of(x)[1])


def channels(x: ir.Value) -> int:
    """Size of the last axis."""
    return int(shape_of(x)[-1])
