"""Random canonical networks and random cores, each from its own seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset
from vitrify.ir import BATCH, Builder, shape_of, tensor

#: Activations that every core computes.
KINDS = ("gelu", "gelu_tanh", "quick_gelu", "silu", "relu", "tanh", "sigmoid", "hard_swish", "elu")
TASKS = 3


class Network:
    """A network of random shape and structure, with weights that keep values of order one."""

    def __init__(self, rng: np.random.Generator, experts: int) -> None:
        self.rng, self._experts = rng, experts
        channels, self.patch = self.pick(1, 2, 3, 4), (self.pick(1, 2, 3, 4), self.pick(1, 2, 4))
        grid = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        self.size = (channels, grid[0] * self.patch[0], grid[1] * self.patch[1])
        self.heads = self.pick(1, 1, 2, 2, 3, 4)
        # A LayerNorm of one channel has nothing to say.
        self.dim = max(2, self.heads * int(rng.integers(1, 13)))
        self.image = tensor("image", (BATCH, *self.size))
        self.task = tensor("task", (BATCH,), ir.DataType.INT64)
        self.tasks = 0
        self.builder = Builder([self.image], name="net")
        self._count = 0
        x = self.tokens(grid[0] * grid[1])
        for _ in range(int(rng.integers(0, 3))):
            x = self.block(x)
        outputs = self.outputs(x)
        if self.tasks:
            self.builder.graph.inputs.append(self.task)
        self.model = self.builder.model(outputs)

    def pick(self, *choices: int) -> int:
        return int(self.rng.choice(choices))

    def name(self, what: str) -> str:
        self._count += 1
        return f"{what}{self._count}"

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    def images(self, count: int) -> np.ndarray:
        return self.normal(count, *self.size)

    # Pieces
    def tokens(self, patches: int) -> ir.Value:
        inner = self.size[0] * self.patch[0] * self.patch[1]
        x = self.builder.emit(
            "PatchEmbed", self.image, self.normal(self.dim, inner) / np.sqrt(inner),
            0.3 * self.normal(self.dim), name="patch", patch=[*self.patch])
        if self.rng.random() < 0.8:
            prefix = self.pick(0, 1, 1, 2, 3)
            x = self.builder.emit(
                "Tokens", x, self.normal(prefix, self.dim),
                self.normal(prefix + patches, self.dim), name="tokens")
        return self.norm(x) if self.rng.random() < 0.15 else x

    def norm(self, x: ir.Value) -> ir.Value:
        dim = int(shape_of(x)[-1])
        return self.builder.emit("LayerNorm", x, 1 + 0.3 * self.normal(dim),
                                 0.3 * self.normal(dim), name=self.name("norm"), epsilon=1e-5)

    def linear(self, x: ir.Value, out: int, gain: float = 1.0) -> ir.Value:
        inner = int(shape_of(x)[-1])
        return self.builder.emit("Linear", x, gain * self.normal(out, inner) / np.sqrt(inner),
                                 0.3 * self.normal(out), name=self.name("linear"))

    def activation(self, x: ir.Value) -> ir.Value:
        return self.builder.emit("Activation", x, name=self.name("act"),
                                 kind=str(self.rng.choice(KINDS)))

    def add(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.builder.emit("Add", *((x, y) if self.rng.random() < 0.7 else (y, x)),
                                 name=self.name("add"))

    def attention(self, x: ir.Value) -> ir.Value:
        made = [self.linear(x, self.dim) for _ in "qkv"]
        scale = (self.dim // self.heads) ** -0.5
        routed = self.heads - 1
        if self._experts and routed >= 2 and self.rng.random() < 0.5:
            count = self.pick(*range(2, routed + 1))
            k = int(self.rng.integers(1, count + 1))
            gates, kind = [self.linear(x, count, 2.0)], "RoutedHeads"
            if self.rng.random() < 0.4:
                kind = "BalancedHeads"
                gates += [self.linear(x, self.heads - count, 2.0), self.linear(x, 2, 2.0)]
            out = self.builder.emit(kind, *made, *gates, name=self.name("heads"),
                                    heads=self.heads, scale=scale, k=k,
                                    normalize=self.pick(0, 1))
        else:
            out = self.builder.emit("Attention", *made, name=self.name("attention"),
                                    heads=self.heads, scale=scale)
        return self.linear(out, self.dim)

    def mlp(self, x: ir.Value) -> ir.Value:
        hidden = self.linear(x, int(self.rng.integers(1, 60)))
        return self.linear(self.activation(hidden), self.dim)

    def mixture(self, x: ir.Value) -> ir.Value:
        count = int(self.rng.integers(2, min(self._experts, 6) + 1))
        hidden, k = int(self.rng.integers(1, 30)), int(self.rng.integers(1, min(count, 4) + 1))
        if self.rng.random() < 0.3:
            self.tasks = TASKS
            logits = self.builder.emit(
                "TaskLinear", x, 3 * self.normal(TASKS, count, self.dim) / np.sqrt(self.dim),
                0.3 * self.normal(TASKS, count), self.task, name=self.name("gate"))
        else:
            logits = self.linear(x, count, 3.0)
        return self.builder.emit(
            "Experts", x, logits, self.normal(count, hidden, self.dim) / np.sqrt(self.dim),
            0.3 * self.normal(count, hidden), self.normal(count, self.dim, hidden) / 3,
            0.3 * self.normal(count, self.dim), name=self.name("experts"), k=k,
            normalize=self.pick(0, 1), kind=str(self.rng.choice(["gelu", "silu", "relu"])))

    def block(self, x: ir.Value) -> ir.Value:
        """One of the ways to add to the residual stream."""
        normal = self.norm(x) if self.rng.random() < 0.9 else x
        kind = self.rng.choice(
            ["usual", "parallel", "twins", "single", "chain", "skip", "mixture", "shared"],
            p=[0.3, 0.12, 0.12, 0.1, 0.08, 0.08, 0.12, 0.08])
        if kind in ("mixture", "shared") and self._experts < 2:
            kind = "usual"
        if kind == "parallel":
            return self.add(self.add(x, self.attention(normal)), self.mlp(normal))
        if kind == "twins":
            for _ in range(self.pick(2, 2, 3)):
                x = self.add(x, self.attention(normal))
            return x
        if kind == "single":
            return self.add(x, self.linear(normal, self.dim))
        if kind == "chain":
            return self.add(x, self.linear(self.linear(normal, 9), self.dim))
        if kind == "skip":
            return self.add(self.add(x, self.mlp(normal)), self.linear(x, self.dim))
        if kind == "mixture":
            return self.add(x, self.mixture(self.norm(x)))
        if kind == "shared":
            normal = self.norm(x)
            return self.add(x, self.add(self.mixture(normal), self.mlp(normal)))
        x = self.add(x, self.attention(normal))
        return self.add(x, self.mlp(self.norm(x)))

    def outputs(self, x: ir.Value) -> list[ir.Value]:
        """One to three: heads of single tokens, of means and of sums, and all tokens."""
        rows = int(shape_of(x)[1])
        normal = self.norm(x) if self.rng.random() < 0.8 else x
        found: list[ir.Value] = []
        for _ in range(self.pick(1, 1, 2, 3)):
            kind = self.rng.choice(["token", "mean", "sum", "all"])
            classes = int(self.rng.integers(1, 24))
            first = self.select(normal, int(self.rng.integers(rows)))
            if kind == "mean":
                start = int(self.rng.integers(rows))
                first = self.builder.emit(
                    "MeanPool", normal, name=self.name("pool"), start=start,
                    end=int(self.rng.integers(start + 1, rows + 1)))
            if kind == "all":
                found.append(self.linear(normal, classes) if self.rng.random() < 0.5 or found
                             else self.norm(x))
            elif kind == "sum":
                second = self.select(normal, int(self.rng.integers(rows)))
                found.append(self.builder.emit(
                    "Add", self.linear(first, classes), self.linear(second, classes),
                    name=self.name("sum")))
            else:
                found.append(self.linear(first, classes))
        return found

    def select(self, x: ir.Value, index: int) -> ir.Value:
        return self.builder.emit("SelectToken", x, name=self.name("select"), index=index)


def core(rng: np.random.Generator) -> ArchConfig:
    """A valid core near the edges: narrow, wide, short of memory, with and without everything."""

    def power(low: int, high: int) -> int:
        return 1 << int(rng.integers(low, high + 1))

    depth, width = power(2, 5), power(1, 6)
    lanes = min(power(0, 4), depth, width)
    return dataclasses.replace(
        preset("nano"), name="fuzz", depth=depth, width=width, lanes=lanes,
        max_rows=power(4, 6), banks=2 * int(rng.integers(2, 7)), bank_words=power(5, 10),
        stat_rows=power(6, 9), index_entries=power(6, 8), bus_bytes=min(depth, power(0, 3)),
        experts=int(rng.choice([0, 4, 8])), stored_weights=bool(rng.integers(2)),
        requant_bits=int(rng.choice([18, 24])), burst_beats=256,
    )
