"""Random integer graphs with the shape of a vision transformer: for core, compiler and machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from vitrify.arch import formats
from vitrify.ops.attention.integer import QAttention, QHeadGate
from vitrify.ops.experts.integer import QExperts
from vitrify.ops.linear.integer import QLinear
from vitrify.ops.pool.integer import QPool
from vitrify.quant.graph import QConstant, QInput, QuantGraph
from vitrify.quant.tensors import Norm, QTensor, Requant, Rows, Statistics


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


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Experts in place of the MLP of every second block.

    ``spread`` is about how far gate logits lie apart, ``bias`` what each has from the start (its
    last value also for the experts behind it); ``apart`` sends row r to expert r alone.  ``tasks``
    gates and heads; ``shared``: hidden channels of a dense layer beside the experts.
    """

    experts: int = 8
    choices: int = 2
    normalise: bool = False
    hidden: int = 24
    spread: float = 300.0
    bias: tuple[int, ...] = (0,)
    apart: bool = False
    tasks: int = 0
    shared: int = 0
    #: Every other expert has a channel more, as experts with split units have.
    ragged: bool = True
    #: Of the experts' weights.
    bits: int = 8


def bias_of(m: Mixture) -> list[int]:
    """One for each expert."""
    return [*m.bias, *[m.bias[-1]] * m.experts][: m.experts]


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
    mixture: Mixture | None = None,
    routed: Mixture | None = None,
    balanced: bool = False,
) -> QuantGraph:
    """A graph with random weights, gains, tables and positions.

    ``pooled`` replaces the class token by a mean over all tokens, ``mixture`` every second MLP.
    ``routed`` weighs the last heads of every attention, which are its experts; ``balanced`` the
    others as well, and both against each other.  Without ``classes`` the result is the residual
    stream.
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

    def weight(out: int, depth: int, wide: int = 8) -> np.ndarray:
        most = (1 << wide - 1) - 1
        return np.clip(
            rng.normal(0, most * 40 / 127, (out, depth)).round(), -most, most).astype(np.int8)

    def linear(
        name: str, x: str, out: str, depth: int, columns: int, wide: int = 8, **options: object,
    ) -> None:
        """A layer whose weights have ``wide`` bits."""
        bits, most = graph.tensors[out].bits, (1 << wide - 1) - 1
        graph.ops.append(QLinear(
            name=name, x=x, out=out, weight=weight(columns, depth, wide),
            requant=requant(rng, columns, depth, (40 if bits == 8 else 80) * 127 / most), **options,
        ))
        rows = options.get("rows", Rows.span(0, tokens)).count
        graph.macs[name] = rows * depth * columns

    def norm() -> Norm:
        return Norm(rng.integers(60, 180, dim).astype(np.uint8))

    statistics = Statistics(*formats.inv_dim(dim), epsilon=1)
    tensor("patches", inner)
    tensor("residual", dim, 16)
    position = rng.normal(0, 60, (tokens, dim)).round().astype(np.int16)
    if mixture is not None and mixture.apart:
        position[np.arange(tokens), np.arange(tokens) % mixture.experts] = 20_000
    for chosen in (mixture, routed):
        if chosen is not None and chosen.tasks:
            graph.tasks["task"] = chosen.tasks
    graph.constants.append(QConstant("residual", position))

    def gate_of(name: str, x: str, m: Mixture, before: Norm) -> None:
        """Logits ``<name>.logits`` for the experts of ``m``."""
        linear(f"{name}.gate", x, tensor(f"{name}.logits", m.experts, 16), dim, m.experts,
               norm=before)
        gate = graph.ops.pop()
        assert isinstance(gate, QLinear)
        sets, post = [], 16 if m.spread < 3000 else 12
        for _ in range(max(1, m.tasks)):
            matrix = weight(m.experts, dim)
            if m.apart:
                matrix = (127 * np.eye(m.experts, dim)).astype(np.int8)
            factor = m.spread / (np.sqrt(dim) * 40 * 40) * 2**post
            bias = np.array(bias_of(m))
            sets.append((
                matrix if m.spread else 0 * matrix,
                np.full(m.experts, max(1, round(factor)), np.uint16),
                (bias * 2.0**post / max(1, round(factor))).round().astype(np.int32),
            ))
        matrix, multiplier, bias = (np.stack(part) for part in zip(*sets, strict=True))
        if not m.tasks:
            matrix, multiplier, bias = matrix[0], multiplier[0], bias[0]
        graph.ops.append(dataclasses.replace(
            gate, weight=matrix, requant=Requant(0, post, multiplier, bias),
            task="task" if m.tasks else None,
        ))

    def head_gate(name: str, x: str, before: Norm, m: Mixture, *sizes: int) -> QHeadGate:
        """Weights of the next so many heads each, from head 0 on."""
        gate_of(name, x, m, before)
        count = sum(sizes) * dim // heads
        multiplier = rng.uniform(0.8, 2, count) * (1 << 16) / 127
        return QHeadGate(
            logits=f"{name}.logits", first=0, heads=sizes, choices=m.choices,
            normalise=m.normalise, weight=np.full(count, 127, np.int8),
            requant=Requant(0, 16, multiplier.astype(np.uint16),
                            rng.integers(-3000, 3000, count).astype(np.int32)),
        )

    def gates(name: str, x: str, before: Norm, m: Mixture) -> dict[str, object]:
        """Fields of an attention."""
        shared, balance = heads - m.experts, None
        found = head_gate(f"{name}.routed", x, before, m, *[1] * m.experts)
        parts = [dataclasses.replace(found, first=shared)]
        if balanced:
            balance = head_gate(f"{name}.balance", x, before, Mixture(experts=2), shared, m.experts)
            if shared > 1:
                same = Mixture(experts=shared, choices=shared)
                parts.append(head_gate(f"{name}.shared", x, before, same, *[1] * shared))
        return {"gated": tuple(parts), "balance": balance}

    def experts(name: str, x: str, out: str, m: Mixture) -> None:
        before = norm()
        gate_of(name, x, m, before)
        tensor(out, dim, 16)
        start, pairs = len(graph.ops), []
        if m.shared:
            tensor(f"{name}.shared", m.shared)
            linear(f"{name}.shared1", x, f"{name}.shared", dim, m.shared, norm=before,
                   table=rng.integers(-128, 128, 256).astype(np.int8))
            start += 1
        for e in range(m.experts):
            inner = tensor(f"{name}.hidden[{e}]", m.hidden + m.ragged * e % 2)
            width = graph.tensors[inner].channels
            linear(f"{name}.fc1", x, inner, dim, width, m.bits, norm=before,
                   table=rng.integers(-128, 128, 256).astype(np.int8))
            linear(f"{name}.fc2", inner, out, width, dim, m.bits, add=True, statistics=statistics)
            pairs.append(tuple(graph.ops[start:]))
            del graph.ops[start:]
        for part in ("fc1", "fc2"):
            graph.macs[f"{name}.{part}"] = tokens * m.choices * dim * m.hidden
        graph.ops.append(QExperts(
            name=name, x=x, logits=f"{name}.logits", residual=x, out=out, choices=m.choices,
            normalise=m.normalise, experts=tuple(pairs), statistics=statistics,
            usage=tuple(float(b > -5_000) for b in bias_of(m)),
        ))
        if m.shared:
            linear(f"{name}.shared2", f"{name}.shared", out, m.shared, dim, add=True,
                   statistics=statistics)

    residual = "residual"
    linear("embed", "patches", "residual", inner, dim, add=True, statistics=statistics)
    for b in range(blocks):
        name = f"blocks.{b}"
        before = norm()
        for part in "qkv":
            tensor(f"{name}.{part}", dim)
            linear(f"{name}.{part}", residual, f"{name}.{part}", dim, dim, norm=before)
        tensor(f"{name}.attention", dim)
        options = {} if routed is None else gates(f"{name}.heads", residual, before, routed)
        idle = 0 if routed is None else routed.experts - routed.choices
        graph.ops.append(QAttention(
            name=f"{name}.attention", **{part: f"{name}.{part}" for part in "qkv"},
            out=f"{name}.attention", heads=heads,
            logits=Requant(
                2, 20, max(1, int(2**22 * 20 / (1600 * np.sqrt(dim // heads)))) & 0xFFFF
            ),
            **options,
        ))
        graph.macs[f"{name}.attention"] = 2 * tokens * tokens * dim // heads * (heads - idle)
        linear(f"{name}.proj", f"{name}.attention", residual, dim, dim, add=True,
               statistics=statistics)
        if mixture is not None and b % 2:
            experts(f"{name}.moe", residual, f"{name}.residual", mixture)
            residual = f"{name}.residual"
            continue
        tensor(f"{name}.hidden", hidden)
        linear(f"{name}.fc1", residual, f"{name}.hidden", dim, hidden, norm=norm(),
               table=rng.integers(-128, 128, 256).astype(np.int8))
        linear(f"{name}.fc2", f"{name}.hidden", residual, hidden, dim, add=True,
               statistics=statistics)
    if not classes:
        graph.outputs["features"] = residual
        return graph
    tensor("logits", classes, 16, rows=1)
    if pooled:
        tensor("normal", dim)
        linear("identity", residual, "normal", dim, dim, norm=norm())
        tensor("pooled", dim, rows=1)
        graph.ops.append(QPool(
            name="pool", x="normal", out="pooled", start=0, stop=tokens, weight=64,
            requant=Requant(0, 20, int(2**20 / (64 * tokens))),
        ))
        graph.macs["pool"] = tokens * dim
        linear("head", "pooled", "logits", dim, classes, rows=Rows.span(0, 1))
    else:
        linear("head", residual, "logits", dim, classes, norm=norm(), rows=Rows.span(0, 1))
    if mixture is not None and mixture.tasks:
        head = graph.ops.pop()
        assert isinstance(head, QLinear)
        again = [requant(rng, classes, dim, 80) for _ in range(mixture.tasks)]
        graph.ops.append(dataclasses.replace(
            head, weight=np.stack([weight(classes, dim) for _ in again]), task="task",
            requant=dataclasses.replace(
                again[0], multiplier=np.stack([r.multiplier for r in again]),
                bias=np.stack([r.bias for r in again]),
            ),
        ))
    graph.outputs["logits"] = "logits"
    return graph
