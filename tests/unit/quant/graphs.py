"""Small canonical graphs with random weights, for the tests of the quantiser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from vitrify.ir import BATCH, Builder, shape_of, tensor

CHANNELS, SIZE, PATCH, DIM, HEADS, HIDDEN, CLASSES = 3, 8, 4, 16, 2, 32, 5
TOKENS = (SIZE // PATCH) ** 2


class Net:
    """A builder with layers in one word; weights scaled to keep activations of order one."""

    def __init__(self, seed: int = 0) -> None:
        print(f"seed {seed}")
        self.rng = np.random.default_rng(seed)
        self.image = tensor("image", (BATCH, CHANNELS, SIZE, SIZE))
        self.builder = Builder([self.image], name="net")

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    def patches(self) -> ir.Value:
        weight = self.normal(DIM, CHANNELS * PATCH**2) / np.sqrt(CHANNELS * PATCH**2)
        return self.builder.emit(
            "PatchEmbed", self.image, weight, self.normal(DIM), name="patch", patch=[PATCH, PATCH]
        )

    def tokens(self, prefix: int = 1) -> ir.Value:
        return self.builder.emit(
            "Tokens",
            self.patches(),
            self.normal(prefix, DIM),
            self.normal(prefix + TOKENS, DIM),
            name="tokens",
        )

    def norm(self, x: ir.Value, name: str, epsilon: float = 1e-6) -> ir.Value:
        gamma, beta = 1 + 0.3 * self.normal(DIM), 0.3 * self.normal(DIM)
        return self.builder.emit("LayerNorm", x, gamma, beta, name=name, epsilon=epsilon)

    def linear(self, x: ir.Value, out: int, name: str) -> ir.Value:
        inner = int(shape_of(x)[-1])
        weight = self.normal(out, inner) / np.sqrt(inner)
        return self.builder.emit("Linear", x, weight, 0.3 * self.normal(out), name=name)

    def attention(self, x: ir.Value, name: str) -> ir.Value:
        q, k, v = (self.linear(x, DIM, f"{name}.{part}") for part in "qkv")
        return self.builder.emit(
            "Attention", q, k, v, name=name, heads=HEADS, scale=(DIM // HEADS) ** -0.5
        )

    def activation(self, x: ir.Value, name: str, kind: str = "gelu") -> ir.Value:
        return self.builder.emit("Activation", x, name=name, kind=kind)

    def add(self, x: ir.Value, y: ir.Value, name: str) -> ir.Value:
        return self.builder.emit("Add", x, y, name=name)

    def block(self, x: ir.Value, name: str, kind: str = "gelu") -> ir.Value:
        attended = self.attention(self.norm(x, f"{name}.norm1"), f"{name}.attention")
        x = self.add(x, self.linear(attended, DIM, f"{name}.proj"), f"{name}.add1")
        hidden = self.linear(self.norm(x, f"{name}.norm2"), HIDDEN, f"{name}.fc1")
        result = self.linear(self.activation(hidden, f"{name}.act", kind), DIM, f"{name}.fc2")
        return self.add(x, result, f"{name}.add2")

    def select(self, x: ir.Value, name: str = "select", index: int = 0) -> ir.Value:
        return self.builder.emit("SelectToken", x, name=name, index=index)

    def pool(self, x: ir.Value, name: str = "pool", start: int = 0) -> ir.Value:
        return self.builder.emit("MeanPool", x, name=name, start=start, end=int(shape_of(x)[1]))

    def head(self, x: ir.Value) -> ir.Value:
        return self.linear(x, CLASSES, "head")

    def model(self, *outputs: ir.Value) -> ir.Model:
        return self.builder.model(list(outputs))

    def images(self, count: int = 48) -> np.ndarray:
        """Pixels of a smooth random kind, as ``(u8 / 255 - 0.5) / 0.5``."""
        size = (int(side) for side in shape_of(self.image)[1:])
        pixels = np.clip(128 + 50 * self.normal(count, *size), 0, 255).round()
        return ((pixels / 255 - 0.5) / 0.5).astype(np.float32)


def vit(net: Net) -> ir.Value:
    """Class token, LayerNorm before the choice."""
    x = net.block(net.tokens(), "block")
    return net.head(net.select(net.norm(x, "norm")))


def select_first(net: Net) -> ir.Value:
    """Class token chosen before the LayerNorm."""
    return net.head(net.norm(net.select(net.block(net.tokens(), "block")), "norm"))


def pool_after_norm(net: Net) -> ir.Value:
    """LayerNorm, mean of all tokens, head."""
    return net.head(net.pool(net.norm(net.block(net.tokens(0), "block"), "norm")))


def pool_before_norm(net: Net) -> ir.Value:
    """Mean of the tokens, LayerNorm, head."""
    return net.head(net.norm(net.pool(net.block(net.tokens(), "block"), start=1), "norm"))


def no_positions(net: Net) -> ir.Value:
    """Nothing is added to the patch embedding."""
    x = net.patches()
    hidden = net.activation(net.linear(net.norm(x, "norm1"), HIDDEN, "fc1"), "act", "silu")
    return net.head(net.pool(net.add(net.linear(hidden, DIM, "fc2"), x, "add")))


def pre_norm(net: Net) -> ir.Value:
    """The residual stream starts behind a LayerNorm (CLIP)."""
    return net.head(net.select(net.block(net.norm(net.tokens(), "pre"), "block")))


def parallel(net: Net) -> ir.Value:
    """Attention and MLP read the same LayerNorm; both are added."""
    x = net.tokens()
    normal = net.norm(x, "norm")
    attended = net.linear(net.attention(normal, "attention"), DIM, "proj")
    hidden = net.activation(net.linear(normal, HIDDEN, "fc1"), "act")
    x = net.add(net.add(x, attended, "add1"), net.linear(hidden, DIM, "fc2"), "add2")
    return net.head(net.norm(net.select(x), "last"))


def two_attentions(net: Net) -> ir.Value:
    """Two attentions read the same LayerNorm; both are added."""
    x = net.tokens()
    normal = net.norm(x, "norm")
    for i in range(2):
        attended = net.linear(net.attention(normal, f"attention{i}"), DIM, f"proj{i}")
        x = net.add(x, attended, f"add{i}")
    return net.head(net.select(x))


def in_place(net: Net) -> ir.Value:
    """The stream is added to what a single layer makes of it, with and without LayerNorm."""
    x = net.tokens()
    x = net.add(x, net.linear(net.norm(x, "norm"), DIM, "first"), "add0")
    return net.head(net.select(net.add(x, net.linear(x, DIM, "second"), "add1")))


def skip(net: Net) -> ir.Value:
    """A linear layer leads around a block: it reads the stream as it was before."""
    x = net.tokens()
    y = net.add(net.block(x, "block"), net.linear(x, DIM, "skip"), "late")
    return net.head(net.select(y))


def two_linears(net: Net) -> ir.Value:
    """A linear layer reads a linear layer, and the stream without LayerNorm."""
    x = net.tokens()
    x = net.add(x, net.linear(net.linear(x, HIDDEN, "down"), DIM, "up"), "add")
    return net.head(net.select(net.activation(x, "act", "tanh")))


def two_heads(net: Net) -> ir.Value:
    """The sum of two heads on two tokens (DeiT with distillation)."""
    x = net.norm(net.block(net.tokens(2), "block"), "norm")
    first, second = net.select(x, "first", 0), net.select(x, "second", 1)
    return net.add(net.linear(first, CLASSES, "a"), net.linear(second, CLASSES, "b"), "sum")


def features(net: Net) -> ir.Value:
    """Every token behind the last LayerNorm."""
    return net.norm(net.block(net.tokens(), "block"), "norm")


def stream(net: Net) -> ir.Value:
    """The residual stream itself."""
    return net.block(net.tokens(), "block")


def turned(net: Net) -> ir.Value:
    """Queries and keys are turned by the position, twice."""
    x = net.tokens()
    for i in range(2):
        normal = net.norm(x, f"norm{i}")
        q, k, v = (net.linear(normal, DIM, f"{part}{i}") for part in "qkv")
        angles = net.normal(1 + TOKENS, DIM)
        q, k = (net.builder.emit("Rotary", y, np.cos(angles), np.sin(angles), name=f"{y.name}.turn",
                                 partner=[channel ^ 1 for channel in range(DIM)])
                for y in (q, k))
        attended = net.builder.emit("Attention", q, k, v, name=f"attention{i}", heads=HEADS,
                                    scale=(DIM // HEADS) ** -0.5)
        x = net.add(x, net.linear(attended, DIM, f"proj{i}"), f"add{i}")
    return net.head(net.select(x))


MAPPINGS: dict[str, Callable[[Net], ir.Value]] = {
    f.__name__: f
    for f in (
        vit,
        select_first,
        pool_after_norm,
        pool_before_norm,
        no_positions,
        pre_norm,
        parallel,
        two_attentions,
        in_place,
        skip,
        two_linears,
        two_heads,
        features,
        stream,
        turned,
    )
}
