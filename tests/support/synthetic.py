"""Random integer graphs with the shape of a vision transformer: for core, compiler and machine."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.quant.graph import (
    Norm,
    QAttention,
    QConstant,
    QInput,
    QLinear,
    QPool,
    QTensor,
    QuantGraph,
    Requant,
    Statistics,
)


def requant(rng: np.random.Generator, columns: int, depth: int, target: float) -> Requant:
    """Scale random sums of ``depth`` products of int8 to about ``target``."""
    spread = np.sqrt(depth) * 40 * 40
    pre = 3
    post = 20
    factor = target / spread * 2 ** (post + pre)
    while factor * 1.5 > formats.MULTIPLIER.max:
        post -= 4
        factor /= 16
    multiplier = rng.uniform(0.5 * factor, 1.5 * factor, columns).astype(np.uint16)
    bias = rng.integers(-1000, 1000, columns).astype(np.int32)
    return Requant(pre, post, multiplier, bias)


def vision_transformer(
    *,
    seed: int = 0,
    image: tuple[int, int, int] = (1, 8, 8),
    patch: int = 2,
    prefix: int = 1,
    dim: int = 16,
    heads: int = 2,
    hidden: int = 32,
    blocks: int = 2,
    classes: int = 10,
    pooled: bool = False,
) -> QuantGraph:
    """A graph with random weights, gains, tables and positions.

    ``pooled`` replaces the class token by a mean over all tokens.
    """
    rng = np.random.default_rng(seed)
    c, h, w = image
    tokens = prefix + (h // patch) * (w // patch)
    inner = c * patch * patch
    graph = QuantGraph(
        name=f"synthetic-{seed}",
        input=QInput("image", "patches", image, (patch, patch), prefix,
                     np.full(c, 50.0), np.zeros(c)),
    )

    def tensor(name: str, channels: int, bits: int = 8, rows: int = tokens) -> str:
        graph.tensors[name] = QTensor(name, rows, channels, bits, 2.0**-6 if bits == 16 else 0.05)
        return name

    def weight(out: int, depth: int) -> np.ndarray:
        return np.clip(rng.normal(0, 40, (out, depth)).round(), -127, 127).astype(np.int8)

    def linear(name: str, x: str, out: str, depth: int, columns: int, **options: object) -> None:
        bits = graph.tensors[out].bits
        graph.ops.append(QLinear(
            name, x, out, weight(columns, depth),
            requant(rng, columns, depth, 40 if bits == 8 else 80), **options,
        ))
        rows = options.get("rows", (0, tokens))[1]
        graph.macs[name] = rows * depth * columns

    def norm() -> Norm:
        return Norm(rng.integers(60, 180, dim).astype(np.uint8))

    statistics = Statistics(*formats.inv_dim(dim), epsilon=1)
    tensor("patches", inner)
    tensor("residual", dim, 16)
    graph.constants.append(QConstant(
        "residual", rng.normal(0, 60, (tokens, dim)).round().astype(np.int16)
    ))
    linear("embed", "patches", "residual", inner, dim, add=True, statistics=statistics)
    for b in range(blocks):
        name = f"blocks.{b}"
        before = norm()
        for part in "qkv":
            tensor(f"{name}.{part}", dim)
            linear(f"{name}.{part}", "residual", f"{name}.{part}", dim, dim, norm=before)
        tensor(f"{name}.attention", dim)
        graph.ops.append(QAttention(
            f"{name}.attention", *(f"{name}.{part}" for part in "qkv"), f"{name}.attention", heads,
            Requant(2, 20, max(1, int(2**22 * 20 / (1600 * np.sqrt(dim // heads)))) & 0xFFFF),
        ))
        graph.macs[f"{name}.attention"] = 2 * tokens * tokens * dim
        linear(f"{name}.proj", f"{name}.attention", "residual", dim, dim, add=True,
               statistics=statistics)
        tensor(f"{name}.hidden", hidden)
        linear(f"{name}.fc1", "residual", f"{name}.hidden", dim, hidden, norm=norm(),
               table=rng.integers(-128, 128, 256).astype(np.int8))
        linear(f"{name}.fc2", f"{name}.hidden", "residual", hidden, dim, add=True,
               statistics=statistics)
    tensor("logits", classes, 16, rows=1)
    if pooled:
        tensor("normal", dim)
        linear("identity", "residual", "normal", dim, dim, norm=norm())
        tensor("pooled", dim, rows=1)
        graph.ops.append(QPool("pool", "normal", "pooled", 0, tokens, 64,
                               Requant(0, 20, int(2**20 / (64 * tokens)))))
        graph.macs["pool"] = tokens * dim
        linear("head", "pooled", "logits", dim, classes, rows=(0, 1))
    else:
        linear("head", "residual", "logits", dim, classes, norm=norm(), rows=(0, 1))
    graph.outputs["logits"] = "logits"
    return graph
