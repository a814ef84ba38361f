"""Canonical graphs with experts and tasks, random weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.unit.quant.graphs import CLASSES, DIM, HIDDEN, Net
from vitrify.ir import BATCH, tensor

EXPERTS, TASKS = 5, 3


class MixedNet(Net):
    """A :class:`Net` whose gates may have tasks; logits far enough apart to survive rounding."""

    def __init__(self, seed: int = 0, task_shape: tuple[int | str, ...] = (BATCH,)) -> None:
        super().__init__(seed)
        self.task = tensor("task", task_shape, ir.DataType.INT64)

    def with_tasks(self) -> None:
        """Make the task an input of the graph."""
        self.builder.graph.inputs.append(self.task)

    def task_linear(self, x: ir.Value, out: int, name: str, scale: float = 1.0) -> ir.Value:
        weight = scale * self.normal(TASKS, out, DIM) / np.sqrt(DIM)
        return self.builder.emit(
            "TaskLinear", x, weight, 0.3 * self.normal(TASKS, out), self.task, name=name
        )

    def experts(
        self, x: ir.Value, name: str, *, k: int = 2, normalize: int = 0, tasks: bool = False,
        kind: str = "gelu",
    ) -> ir.Value:
        if tasks:
            logits = self.task_linear(x, EXPERTS, f"{name}.gate", 3.0)
        else:
            weight = 3 * self.normal(EXPERTS, DIM) / np.sqrt(DIM)
            logits = self.builder.emit(
                "Linear", x, weight, 0.3 * self.normal(EXPERTS), name=f"{name}.gate"
            )
        return self.builder.emit(
            "Experts", x, logits, self.normal(EXPERTS, HIDDEN, DIM) / np.sqrt(DIM),
            0.3 * self.normal(EXPERTS, HIDDEN), self.normal(EXPERTS, DIM, HIDDEN) / 3,
            0.3 * self.normal(EXPERTS, DIM), name=name, k=k, normalize=normalize, kind=kind,
        )

    def mlp(self, x: ir.Value, name: str) -> ir.Value:
        hidden = self.activation(self.linear(x, HIDDEN, f"{name}.fc1"), f"{name}.act")
        return self.linear(hidden, DIM, f"{name}.fc2")

    def end(self, x: ir.Value) -> ir.Value:
        return self.head(self.select(self.norm(x, "last")))


def plain(net: MixedNet) -> ir.Value:
    """Two of five experts, weights as in M3ViT."""
    x = net.block(net.tokens(), "block")
    return net.end(net.add(x, net.experts(net.norm(x, "norm"), "moe"), "sum"))


def one_choice(net: MixedNet) -> ir.Value:
    """One expert, weight 1; the addition the other way around."""
    x = net.tokens()
    return net.end(net.add(net.experts(net.norm(x, "norm"), "moe", k=1, normalize=1), x, "sum"))


def two_mixtures(net: MixedNet) -> ir.Value:
    """One behind the other, the last one the last op of the network."""
    x = net.tokens()
    x = net.add(x, net.experts(net.norm(x, "norm1"), "moe1", k=3, kind="relu"), "sum1")
    return net.add(x, net.experts(net.norm(x, "norm2"), "moe2", normalize=1), "sum2")


def tasks(net: MixedNet) -> ir.Value:
    """A gate and a head for each task."""
    net.with_tasks()
    x = net.block(net.tokens(), "block")
    x = net.add(x, net.experts(net.norm(x, "norm"), "moe", tasks=True), "sum")
    return net.task_linear(net.select(net.norm(x, "last")), CLASSES, "head")


def dense_first(net: MixedNet) -> ir.Value:
    """A dense MLP beside the experts, added before them."""
    x = net.tokens()
    normal = net.norm(x, "norm")
    dense = net.add(x, net.mlp(normal, "mlp"), "add")
    return net.end(net.add(dense, net.experts(normal, "moe"), "sum"))


def dense_last(net: MixedNet) -> ir.Value:
    """A dense MLP beside the experts, added after them."""
    x = net.tokens()
    normal = net.norm(x, "norm")
    mixed = net.add(x, net.experts(normal, "moe"), "add")
    return net.end(net.add(mixed, net.mlp(normal, "mlp"), "sum"))


def dense_between(net: MixedNet) -> ir.Value:
    """A dense MLP and the experts, added to each other first."""
    x = net.tokens()
    normal = net.norm(x, "norm")
    inner = net.add(net.mlp(normal, "mlp"), net.experts(normal, "moe"), "inner")
    return net.end(net.add(inner, x, "sum"))


def beside_each_other(net: MixedNet) -> ir.Value:
    """Two mixtures of the same rows."""
    x = net.tokens()
    normal = net.norm(x, "norm")
    x = net.add(x, net.experts(normal, "moe1"), "sum1")
    return net.end(net.add(x, net.experts(normal, "moe2"), "sum2"))


def no_norm(net: MixedNet) -> ir.Value:
    """Gate and experts read the stream itself."""
    x = net.tokens()
    return net.end(net.add(x, net.experts(x, "moe"), "sum"))


MAPPINGS: dict[str, Callable[[MixedNet], ir.Value]] = {
    f.__name__: f
    for f in (
        plain, one_choice, two_mixtures, tasks, dense_first, dense_last, dense_between,
        beside_each_other, no_norm,
    )
}  # fmt: skip
