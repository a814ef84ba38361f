"""Attention in integers, and heads multiplied by gate weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vitrify.golden.ops import requantise, routing
from vitrify.golden.ops.matmul import matmul
from vitrify.ops.transpose.integer import ONE
from vitrify.quant.evaluation import Evaluation, IntArray
from vitrify.quant.graph import QOp
from vitrify.quant.tensors import Int8, Requant


@dataclass(frozen=True, kw_only=True)
class QHeadGate:
    """Heads of an int8 tensor multiplied by gate weights, int8 again.

    The gate weights are those of experts (``golden.ops.routing``); each logit is for the next so
    many ``heads``, from head ``first`` on.  ``weight``, ``requant.multiplier`` and
    ``requant.bias`` have one entry a channel of these heads: ``out = requant(weight * x)``, its
    multiplier scaled by the gate weight, zero where the logit was not chosen.
    """

    logits: str
    first: int
    heads: tuple[int, ...]
    choices: int
    normalise: bool
    weight: Int8
    requant: Requant

    def apply(self, run: Evaluation, x: IntArray, heads: int) -> None:
        """Multiply heads of ``x [N, rows, channels]``, which has ``heads`` in all, in place."""
        logits = run.read(self.logits)
        flat = logits.reshape(-1, logits.shape[2])
        chosen, weight = routing.gate(flat, self.choices, normalise=self.normalise)
        gates = np.zeros(flat.shape, np.int64)
        np.put_along_axis(gates, chosen, weight, axis=1)
        dim = x.shape[2] // heads
        multiplier, bias = np.asarray(self.requant.multiplier), np.asarray(self.requant.bias)
        # The head's number among those that are gated, and its logit.
        for number, logit in enumerate(np.repeat(np.arange(len(self.heads)), self.heads)):
            mine = slice(number * dim, (number + 1) * dim)
            out = x[:, :, self.first * dim :][:, :, mine]
            acc = self.weight[mine].astype(np.int64) * out.reshape(-1, dim)
            requant = replace(self.requant, multiplier=multiplier[mine], bias=bias[mine])
            value = run.scale(acc, requant, gates[:, logit])
            out[:] = requantise.to_int8(value).reshape(out.shape)


@dataclass(frozen=True)
class QPositions:
    """What each query has for each key: channel ``keys[key]`` of a head of ``tensor``, requantised.

    The accumulators hold :data:`ONE` times the bytes; ``requant`` has a single multiplier.
    """

    tensor: str
    keys: IntArray
    requant: Requant

    def matrix(self, channels: int) -> Int8:
        """``[keys, channels]`` of a head: what spreads its channels over the keys."""
        return (ONE * (self.keys[:, None] == np.arange(channels))).astype(np.int8)


@dataclass(frozen=True, kw_only=True)
class QAttention(QOp):
    """Scores (int8 logits, base 2), softmax, values: three int8 tensors to one.

    Without softmax, weights are the scores through a ``table``, if any, and ``values`` requantises
    what they make of the values.

    Each of ``row_groups`` runs of queries sees the keys of its own run.  Channels are
    ``heads * head_dim``, head by head; the values' heads may have another width.  ``logits`` gives
    the scores' requantisation (single multiplier), ``bias``, if any, is added to them before they
    become bytes: ``[row_groups or 1, heads or 1, queries, keys]`` of a run.  ``positions`` are
    added in the same way, one sum of bytes after the other.  The output has the value tensor's
    scale, but for heads that are ``gated``, each by one gate at most.  Afterwards
    ``balance`` gates every head, with as many choices as logits.
    """

    q: str
    k: str
    v: str
    heads: int
    logits: Requant
    row_groups: int = 1
    bias: Int8 | None = None
    positions: tuple[QPositions, ...] = ()
    table: Int8 | None = None
    values: Requant | None = None
    gated: tuple[QHeadGate, ...] = ()
    balance: QHeadGate | None = None

    @property
    def gates(self) -> tuple[QHeadGate, ...]:
        """All of them, in the order in which they are applied."""
        return self.gated if self.balance is None else (*self.gated, self.balance)

    def sources(self) -> tuple[str, ...]:
        return (self.q, self.k, self.v, *self._positioned, *self.routed_by())

    @property
    def _positioned(self) -> tuple[str, ...]:
        return tuple(each.tensor for each in self.positions)

    def streamed(self) -> tuple[str, ...]:
        return (self.q,)

    def stationary(self) -> tuple[str, ...]:
        return (self.k, self.v)

    def groups(self) -> Mapping[str, int]:
        return dict.fromkeys((self.q, self.k, self.v, *self._positioned, self.out), self.heads)

    def routed_by(self) -> tuple[str, ...]:
        return tuple(gate.logits for gate in self.gates)

    def rows_read(self, made: range) -> Mapping[str, range] | None:
        by_query = (self.q, *self._positioned)
        alone = self.row_groups == 1 and not {*by_query} & {self.k, self.v}
        return dict.fromkeys(by_query, made) if alone and not self.gates else None

    def part(self, made: range, kept: Mapping[str, range]) -> QOp | None:
        if any(kept[name] != made for name in (self.q, *self._positioned)):
            return None
        bias = self.bias
        if bias is not None and bias.shape[2] > 1:
            bias = bias[:, :, made.start : made.stop]
        return replace(self, bias=bias)

    def evaluate(self, run: Evaluation) -> None:
        q, k, v = (self._matrices(run.read(name)) for name in (self.q, self.k, self.v))
        out = np.empty((*q.shape[:3], v.shape[3]), np.int8)
        positions = [self._matrices(run.read(each.tensor)) for each in self.positions]
        for group in range(len(q)):
            for head in range(self.heads):
                part = group, slice(None), head
                scores = run.scale(matmul(q[part], k[part]), self.logits)
                bias = self.bias_of(group % self.row_groups, head)
                for each, x in zip(self.positions, positions, strict=True):
                    acc = matmul(x[part], each.matrix(x.shape[3]))
                    bias = requantise.to_int8(run.scale(acc, each.requant), None, bias)
                weights = requantise.to_int8(scores, self.table, bias)
                if self.values is None:
                    out[part] = run.average(weights, v[part].T)
                else:
                    made = run.scale(matmul(weights, v[part].T), self.values)
                    out[part] = requantise.to_int8(made)
        out = out.reshape(*run.read(self.q).shape[:2], -1)
        for gate in self.gates:
            gate.apply(run, out, self.heads)
        run.write(self.out, out)

    def bias_of(self, group: int, head: int) -> Int8 | None:
        """What is added to the scores ``[queries, keys]`` of a head of a row group."""
        if self.bias is None:
            return None
        groups, heads = self.bias.shape[:2]
        return self.bias[group % groups, head % heads]

    def _matrices(self, x: IntArray) -> IntArray:
        """``[N, rows, channels]`` to ``[N * row_groups, rows of a run, heads, head_dim]``."""
        runs = len(x) * self.row_groups
        return x.reshape(runs, x.shape[1] // self.row_groups, self.heads, -1)
