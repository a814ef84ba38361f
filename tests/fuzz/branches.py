"""Branches of random networks: from tokens ``[N, T, D]`` to others of the same shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.fuzz.pieces import TASKS, Pieces, channels, rows

Branch = Callable[[Pieces, ir.Value], ir.Value]


def mlp(net: Pieces, x: ir.Value) -> ir.Value:
    hidden = net.linear(x, int(net.rng.integers(1, 60)))
    return net.linear(net.activation(hidden), channels(x))


def single(net: Pieces, x: ir.Value) -> ir.Value:
    return net.linear(x, channels(x))


def chain(net: Pieces, x: ir.Value) -> ir.Value:
    return net.linear(net.linear(x, 9), channels(x))


def attention(net: Pieces, x: ir.Value) -> ir.Value:
    """Of all tokens; some heads may be chosen by a router."""
    dim = channels(x)
    made = [net.linear(x, dim) for _ in "qkv"]
    scale, routed = (dim // net.heads) ** -0.5, net.heads - 1
    if not net.experts or routed < 2 or net.chance(0.5):
        return net.linear(net.emit("Attention", *made, heads=net.heads, scale=scale), dim)
    count = net.pick(*range(2, routed + 1))
    k = int(net.rng.integers(1, count + 1))
    gates, kind = [net.linear(x, count, 2.0)], "RoutedHeads"
    if net.chance(0.4):
        kind = "BalancedHeads"
        gates += [net.linear(x, net.heads - count, 2.0), net.linear(x, 2, 2.0)]
    out = net.emit(kind, *made, *gates, heads=net.heads, scale=scale, k=k,
                   normalize=net.pick(0, 1))
    return net.linear(out, dim)


def rotary(net: Pieces, x: ir.Value) -> ir.Value:
    """Queries and keys are turned by the position."""
    dim = channels(x)
    q, k, v = (net.linear(x, dim) for _ in "qkv")
    partner = (np.arange(dim) ^ 1 if dim % 2 == 0 and net.chance(0.6)
               else np.roll(np.arange(dim), 1))

    def turned(y: ir.Value) -> ir.Value:
        angle = net.rng.uniform(-3, 3, (rows(x), dim)).astype(np.float32)
        return net.emit("Rotary", y, np.cos(angle), np.sin(angle),
                        partner=[int(i) for i in partner])

    out = net.emit("Attention", turned(q), turned(k), v, heads=net.heads,
                   scale=(dim // net.heads) ** -0.5)
    return net.linear(out, dim)


def _cross(net: Pieces, q: ir.Value, k: ir.Value, v: ir.Value, groups: int) -> ir.Value:
    """Attention in groups of rows, with a bias for each, each head, each query, or none."""
    bias = np.zeros((1, 1, 1, 1), np.float32)
    if net.chance(0.6):
        wanted = (groups, net.heads, rows(q) // groups, rows(k) // groups)
        bias = 2 * net.normal(*(size if net.chance(0.7) else 1 for size in wanted[:3]), wanted[3])
        if wanted[3] > 1 and net.chance(0.3):
            bias[..., -1, 0] = -np.inf
    return net.emit("CrossAttention", q, k, v, bias, heads=net.heads, groups=groups,
                    scale=(channels(q) // net.heads) ** -0.5, kind="softmax")


def windows(net: Pieces, x: ir.Value) -> ir.Value:
    """Attention within groups of permuted rows, which are put back."""
    order, dim = net.rng.permutation(rows(x)), channels(x)
    shifted = net.rows(x, order)
    q, k, v = (net.linear(shifted, dim) for _ in "qkv")
    out = net.linear(_cross(net, q, k, v, net.divisor(rows(x))), dim)
    return net.rows(out, np.argsort(order))


def reduced(net: Pieces, x: ir.Value) -> ir.Value:
    """Keys and values are fewer or more rows than queries, and values of another width."""
    dim = channels(x)
    kind = net.pick(0, 1, 2)
    if kind == 0:
        keys = net.rows(x, net.rng.integers(rows(x), size=int(net.rng.integers(1, 9))))
    elif kind == 1:
        keys = _mix(net, x, int(net.rng.integers(1, 9)), 1, 1)
    else:
        keys = net.norm(_strided(net, x))
    width = net.heads * int(net.rng.integers(1, 9))
    q, k, v = (net.linear(a, size) for a, size in ((x, dim), (keys, dim), (keys, width)))
    return net.linear(_cross(net, q, k, v, 1), dim)


def _mix(net: Pieces, x: ir.Value, out: int, heads: int, groups: int) -> ir.Value:
    """``out`` rows of each group."""
    inner = rows(x) // groups
    matrix = net.normal(heads, out, inner) / np.sqrt(inner)
    return net.emit("Mix", x, matrix, 0.3 * net.normal(out), heads=heads, groups=groups)


def mixed(net: Pieces, x: ir.Value) -> ir.Value:
    """An MLP over tokens, of each head and group of rows by itself."""
    heads, groups = net.divisor(channels(x)), net.divisor(rows(x))
    hidden = net.activation(_mix(net, x, int(net.rng.integers(1, 12)), heads, groups))
    return _mix(net, hidden, rows(x) // groups, heads, groups)


def gated(net: Pieces, x: ir.Value) -> ir.Value:
    """SwiGLU and its like; or the product of what is at hand."""
    if net.chance(0.3):
        return net.linear(net.emit("Multiply", x, net.linear(x, channels(x))), channels(x))
    width = int(net.rng.integers(1, 40))
    gate = net.activation(net.linear(x, width))
    return net.linear(net.emit("Multiply", gate, net.linear(x, width)), channels(x))


def excited(net: Pieces, x: ir.Value) -> ir.Value:
    """One row of weights for all rows."""
    y = net.linear(x, channels(x))
    row = net.rows(y, net.rng.integers(rows(x), size=1))
    narrow = net.activation(net.linear(row, int(net.rng.integers(1, 9))))
    weights = net.activation(net.linear(narrow, channels(x)), "sigmoid")
    return net.linear(net.emit("Multiply", y, weights), channels(x))


def _map(net: Pieces, x: ir.Value) -> tuple[int, int]:
    """A size of which several maps may make up the rows."""
    height = net.divisor(rows(x))
    return height, net.divisor(rows(x) // height)


def _conv(
    net: Pieces, x: ir.Value, groups: int, kernel: list[int], **where: list[int]
) -> ir.Value:
    """As many channels as before."""
    dim = channels(x)
    weight = net.normal(dim, dim // groups, *kernel)
    return net.emit("Conv", x, weight / np.sqrt(weight[0].size), 0.3 * net.normal(dim),
                    groups=groups, **where)


def convolved(net: Pieces, x: ir.Value) -> ir.Value:
    """A convolution that keeps the size: depthwise, in groups, or full; maybe dilated."""
    dim, dilation = channels(x), net.pick(1, 1, 1, 2)
    kernel, pads = [net.pick(1, 2, 3, 3), net.pick(1, 2, 3, 3)], [0, 0, 0, 0]
    for axis, size in enumerate(kernel):
        around = dilation * (size - 1)
        pads[axis] = int(net.rng.integers(around + 1)) if net.chance(0.3) else around // 2
        pads[axis + 2] = around - pads[axis]
    made = _conv(net, x, dim if net.chance(0.5) else net.divisor(dim), kernel,
                 map=[*_map(net, x)], strides=[1, 1], pads=pads, dilations=[dilation] * 2)
    return net.linear(net.activation(made), dim) if net.chance(0.5) else made


def pooled(net: Pieces, x: ir.Value) -> ir.Value:
    return net.emit("Pool", x, kind=str(net.rng.choice(["max", "average"])), map=[*_map(net, x)],
                    kernel=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], count_include_pad=1)


def _strided(net: Pieces, x: ir.Value) -> ir.Value:
    """A smaller map of the same channels."""
    dim, size, stride = channels(x), _map(net, x), net.pick(1, 2, 3)
    kernel = [min(stride, size[0]), min(stride, size[1])]
    where = {"map": [*size], "strides": [stride] * 2, "pads": [0] * 4}
    if net.chance(0.4):
        return net.emit("Pool", x, kind=str(net.rng.choice(["max", "average"])), kernel=kernel,
                        count_include_pad=1, **where)
    return _conv(net, x, net.divisor(dim), kernel, dilations=[1, 1], **where)


def side_by_side(net: Pieces, x: ir.Value) -> ir.Value:
    left, right = (net.linear(x, int(net.rng.integers(1, 20))) for _ in range(2))
    if net.chance(0.5):
        left = net.activation(left)
    return net.linear(net.emit("ConcatChannels", left, right), channels(x))


def halves(net: Pieces, x: ir.Value) -> ir.Value:
    """The first rows and the others go ways of their own."""
    if rows(x) == 1:
        return single(net, x)
    cut = int(net.rng.integers(1, rows(x)))
    parts = [net.rows(x, np.arange(cut)), net.rows(x, np.arange(cut, rows(x)))]
    ways = (mlp, single, gated)
    return net.emit("ConcatRows", *(ways[net.pick(0, 1, 2)](net, part) for part in parts))


def gathered(net: Pieces, x: ir.Value) -> ir.Value:
    """Any rows in any order, some of them several times, before or behind a layer."""
    index = net.rng.integers(rows(x), size=rows(x))
    if net.chance(0.5):
        return net.rows(net.linear(x, channels(x)), index)
    return net.linear(net.rows(x, index), channels(x))


def scaled(net: Pieces, x: ir.Value) -> ir.Value:
    """A layer scale; or channels in another order, some of them zeros."""
    dim = channels(x)
    if net.chance(0.5):
        shape = (1, dim if net.chance(0.7) else 1)
        return net.emit("Affine", net.linear(x, dim), net.normal(*shape), net.normal(1, dim))
    index = net.rng.integers(-1, dim, size=dim)
    return net.emit("Channels", net.linear(x, dim), index=[int(i) for i in index])


def mixture(net: Pieces, x: ir.Value) -> ir.Value:
    """Experts, whose gate may depend on a task."""
    dim = channels(x)
    count = int(net.rng.integers(2, min(net.experts, 6) + 1))
    hidden, k = int(net.rng.integers(1, 30)), int(net.rng.integers(1, min(count, 4) + 1))
    if net.chance(0.3):
        logits = net.emit("TaskLinear", x, 3 * net.normal(TASKS, count, dim) / np.sqrt(dim),
                          0.3 * net.normal(TASKS, count), net.task)
    else:
        logits = net.linear(x, count, 3.0)
    return net.emit(
        "Experts", x, logits, net.normal(count, hidden, dim) / np.sqrt(dim),
        0.3 * net.normal(count, hidden), net.normal(count, dim, hidden) / 3,
        0.3 * net.normal(count, dim), k=k, normalize=net.pick(0, 1),
        kind=str(net.rng.choice(["gelu", "silu", "relu"])))


#: How often each is chosen, all but experts, which some cores have no router for.
BRANCHES: dict[Branch, float] = {
    mlp: 3, attention: 3, single: 1, chain: 1, rotary: 1, windows: 2, reduced: 2, mixed: 2,
    gated: 2, excited: 1, convolved: 2, pooled: 1, side_by_side: 1, halves: 1, gathered: 1,
    scaled: 1,
}


def choose(net: Pieces) -> Branch:
    """One of them."""
    kinds, weights = list(BRANCHES), np.array(list(BRANCHES.values()))
    return kinds[int(net.rng.choice(len(kinds), p=weights / weights.sum()))]


# Other shapes --------------------------------------------------------------------------------
def stage(net: Pieces, x: ir.Value) -> ir.Value:
    """What leads to a next stage: other rows, other channels."""
    dim, count = net.heads * int(net.rng.integers(1, 9)), rows(x)
    match net.pick(0, 1, 2, 3, 4, 5):
        case 0:  # patches are merged
            return net.linear(net.emit("Fold", x, rows=net.divisor(count)), dim)
        case 1:
            return net.linear(_strided(net, x), dim)
        case 2:  # a row of its own in front
            fixed = net.emit("ConstantRows", x, net.normal(net.pick(1, 2), channels(x)))
            return net.emit("ConcatRows", *((fixed, x) if net.chance(0.5) else (x, fixed)))
        case 3:  # positions
            prefix = net.pick(0, 1, 2)
            return net.emit("Tokens", x, net.normal(prefix, channels(x)),
                            net.normal(prefix + count, channels(x)))
        case 4:  # tokens are dropped
            kept = net.rng.permutation(count)[: int(net.rng.integers(1, count + 1))]
            return net.rows(net.norm(x), np.sort(kept) if net.chance(0.5) else kept)
        case _:
            return _mix(net, x, int(net.rng.integers(1, 20)), net.divisor(channels(x)), 1)

