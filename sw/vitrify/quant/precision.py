"""How many bits the weights of each layer have: what four instead of eight cost, and the choice.

Two integer graphs of one model, with weights of eight and of four bits, differ in the weights and
multipliers of their ops alone, so that any op of one may stand in the other.  Small errors of
different layers add up, in the noise of the results, as if each were alone: layers are measured
one by one, and those that save most bytes for the least noise are the first to have four bits.
What one layer adds to the divergence says less: few images make the most of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.ir import Evaluator as FloatEvaluator

from .calibrate import feeds
from .evaluate import BATCH, Evaluator
from .graph import QOp, QuantGraph
from .planner import stored_as
from .wanted import MAX_DROP, Weights

Outputs = dict[str, npt.NDArray[np.float64]]
#: Calibration images that layers are judged by.
_IMAGES = 32
#: Least signal of an image, in parts of the mean: nothing would count beside noise over none.
_LEAST_SIGNAL = 0.01
#: Rows of the table of what can be had.
_POINTS = 9


@dataclass(frozen=True)
class Cost:
    """Distance of results from those of the float model; results ``[N, C]`` are taken for logits.

    ``divergence`` is the mean KL divergence in nats of a classifier, else noise over signal.
    ``drop`` is in points: how much less likely, for the float model, is what the integers answer
    than its own answer; ``None`` where there are no classes.  ``noise`` is noise over signal of the
    results of an image, in the mean of images and outputs, without what all logits have in common.
    """

    divergence: float
    drop: float | None
    noise: float


@dataclass(frozen=True)
class Point:
    """A choice: layers that have four bits, bits and bytes of all weights, and what it costs."""

    layers: int
    bits: float
    bytes: int
    divergence: float
    drop: float | None


class Judge:
    """Float results of some images, and how far others are from them."""

    def __init__(
        self, canonical: ir.Model, arch: ArchConfig, images: npt.NDArray[np.float32],
        tasks: Mapping[str, int],
    ) -> None:
        self.images = images[:: -(-len(images) // _IMAGES)]
        self._arch = arch
        self.tasks = {name: np.arange(len(self.images)) % n for name, n in tasks.items()}
        names = {value.name or "": stored_as(value) for value in canonical.graph.outputs}
        evaluator, parts = FloatEvaluator(canonical, list(dict.fromkeys(names.values()))), []
        for start in range(0, len(self.images), BATCH):
            some = slice(start, start + BATCH)
            numbers = {name: task[some] for name, task in self.tasks.items()}
            parts.append(evaluator.run(feeds(canonical, self.images[some], numbers)))
        self._exact = {
            name: np.concatenate([part[value] for part in parts]).astype(np.float64)
            for name, value in names.items()
        }

    def cost(self, found: Outputs) -> Cost:
        """Of ``[N, rows, channels]`` by output."""
        pairs = [(exact, found[name].reshape(exact.shape)) for name, exact in self._exact.items()]
        noise = float(np.mean([_noise(exact, near) for exact, near in pairs]))
        classes = [pair for pair in pairs if _has_classes(pair[0])]
        if not classes:
            return Cost(sum(
                float(np.square(near - exact).sum() / max(np.square(exact).sum(), 1e-30))
                for exact, near in pairs
            ), None, noise)
        divergence = drop = 0.0
        for exact, near in classes:
            sure, close = _log_softmax(exact), _log_softmax(near)
            share = np.exp(sure)
            divergence += float((share * (sure - close)).sum(axis=1).mean())
            answered = np.take_along_axis(share, near.argmax(axis=1)[:, None], axis=1)
            drop += 100 * float((share.max(axis=1) - answered[:, 0]).mean())
        return Cost(divergence / len(classes), drop / len(classes), noise)

    def of(self, graph: QuantGraph) -> Cost:
        """Of an integer graph."""
        return self.cost(Evaluator(graph, self._arch).outputs(self.images, self.tasks))

    def each(
        self, graph: QuantGraph, others: Mapping[str, QOp],
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, Cost]:
        """With each of ``others`` alone in the place of the op of its name."""
        evaluator, parts = Evaluator(graph, self._arch), {name: [] for name in others}
        for start in range(0, len(self.images), BATCH):
            some = slice(start, start + BATCH)
            run = evaluator.begin(self.images[some], {
                name: task[some] for name, task in self.tasks.items()})
            for number, op in enumerate(graph.ops):
                if op.name in others:
                    fork = run.fork()
                    for later in (others[op.name], *graph.ops[number + 1 :]):
                        later.evaluate(fork)
                    parts[op.name].append(evaluator.results(fork))
                op.evaluate(run)
                if progress is not None:
                    progress((start + BATCH * number / len(graph.ops)) / len(self.images))
        return {
            name: self.cost({key: np.concatenate([p[key] for p in found]) for key in found[0]})
            for name, found in parts.items()
        }


def choose(
    wide: QuantGraph, narrow: QuantGraph, judge: Judge, wanted: Weights,
    progress: Callable[[str, float], None] | None = None,
) -> QuantGraph:
    """The ops of ``narrow`` where that is cheap, of ``wide`` elsewhere, within what is ``wanted``.

    Raises
    ------
    InputError
        If that cannot be had; the message says what can.
    """
    report = progress or (lambda _phrase, _fraction: None)
    others = {
        few.name: few for many, few in zip(wide.ops, narrow.ops, strict=True)
        if weight_bits(many) != weight_bits(few)
    }
    found = judge.each(wide, others, lambda share: report("judging layers", 0.8 * share))
    saved = {op.name: size(op) - size(others[op.name]) for op in wide.ops if op.name in others}
    base = judge.of(wide)
    # for each byte that a layer saves
    price = {name: (found[name].noise - base.noise) / saved[name] for name in others}
    order = sorted(others, key=price.__getitem__)

    def mixed(count: int) -> QuantGraph:
        few = set(order[:count])
        return replace(
            wide, ops=[others[op.name] if op.name in few else op for op in wide.ops],
            scales=wide.scales | {n: s for n, s in narrow.scales.items() if n in few},
        )

    points: dict[int, Point] = {}

    def point(count: int) -> Point:
        if count not in points:
            graph = mixed(count)
            total, weights = sum(map(size, graph.ops)), sum(map(_weights, graph.ops))
            cost = judge.of(graph) if count else base
            points[count] = Point(count, 8 * total / weights, total, cost.divergence, cost.drop)
        return points[count]

    counts = sorted({round(float(count)) for count in np.linspace(0, len(order), _POINTS)})
    for number, count in enumerate(counts):
        point(count)
        report("weighing layers against each other", 0.8 + 0.15 * (number + 1) / _POINTS)
    if wanted.budget_bytes is not None:
        total, chosen = points[0].bytes, 0
        while total > wanted.budget_bytes and chosen < len(order):
            total -= saved[order[chosen]]
            chosen += 1
        if total > wanted.budget_bytes:
            raise InputError(
                f"--budget-bytes {wanted.budget_bytes} is less than the {total} bytes that the "
                f"weights have with four bits in every layer that may have them"
            )
    else:
        limit = MAX_DROP if wanted.max_drop is None else wanted.max_drop
        if points[0].drop is None:
            raise InputError(
                f"{wide.name!r} has no output of classes, and nothing to lose points of: use "
                f"--budget-bytes"
            )
        chosen = _most(counts, lambda count: (point(count).drop or 0.0) <= limit)
    point(chosen)
    graph = mixed(chosen)
    graph.precision = [asdict(points[count]) | {"chosen": count == chosen}
                       for count in sorted(points)]
    return graph


def _most(counts: list[int], allowed: Callable[[int], bool]) -> int:
    """The last number before the first one that is not ``allowed``, looked for between ``counts``.

    The first of ``counts`` is taken in any case.
    """
    high = next((i for i, count in enumerate(counts) if not allowed(count)), None)
    if high is None:
        return counts[-1]
    low, high = counts[max(0, high - 1)], counts[high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


def weight_bits(op: QOp) -> list[int]:
    """Bits that the weights of each layer of an op have: 4 or 8."""
    return [layer.bits for layer in op.layers()]


def size(op: QOp) -> int:
    """Bytes of an op's weights, without padding."""
    bits = zip(op.layers(), weight_bits(op), strict=True)
    return sum(layer.weight.size * of_each for layer, of_each in bits) // 8


def _weights(op: QOp) -> int:
    return sum(layer.weight.size for layer in op.layers())


def _has_classes(result: npt.NDArray[np.float64]) -> bool:
    return result.ndim == 2 and result.shape[1] > 1


def _noise(exact: npt.NDArray[np.float64], near: npt.NDArray[np.float64]) -> float:
    """Noise over signal of each image, in the mean."""
    signal, error = (x.reshape(len(x), -1) for x in (exact, near - exact))
    if _has_classes(exact):
        signal, error = (x - x.mean(axis=1, keepdims=True) for x in (signal, error))
    power = np.square(signal).sum(axis=1)
    power = np.maximum(power, max(_LEAST_SIGNAL * float(power.mean()), 1e-30))
    return float(np.mean(np.square(error).sum(axis=1) / power))


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
