"""One case of every operation on token tensors: operands, attributes, the result in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SEED = 8
N, T, D = 2, 6, 4
RNG = np.random.default_rng(SEED)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X, Y, IMAGE = random(N, T, D), random(N, T, D), random(N, 3, 5, 6)
GAMMA, BETA = random(D), random(D)
KERNEL, DEPTHWISE, STEM = random(6, D, 2, 3), random(8, 1, 3, 3), random(7, 3, 3, 3)
BIAS = random(8)
BIAS_ROWS, MATRICES, SCALE, SHIFT = random(5), random(2, 5, 3), random(1, D), random(T, 1)
COS, SIN = random(T, D), random(T, D)
Q, K, V, Q6 = random(N, 4, 6), random(N, 6, 6), random(N, 6, 4), random(N, 6, 6)
MASK = random(2, 1, 2, 3)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def convolve(
    grid: np.ndarray, weight: np.ndarray, bias: np.ndarray, strides: tuple[int, int],
    pads: tuple[int, int, int, int], groups: int = 1, dilation: int = 1,
) -> np.ndarray:  # fmt: skip
    """[N, C, H, W] to [N, T, out], pixel by pixel."""
    top, left, bottom, right = pads
    grid = np.pad(grid, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kh, kw = weight.shape[2:]
    rows = []
    for y in range(0, grid.shape[2] - dilation * (kh - 1), strides[0]):
        for x in range(0, grid.shape[3] - dilation * (kw - 1), strides[1]):
            window = grid[:, :, y : y + dilation * kh : dilation, x : x + dilation * kw : dilation]
            parts = np.split(window, groups, 1), np.split(weight, groups, 0)
            made = [np.einsum("ncyx,ocyx->no", *pair) for pair in zip(*parts, strict=True)]
            rows.append(np.concatenate(made, 1) + bias)
    return np.stack(rows, 1)


def as_map(x: np.ndarray, height: int, width: int) -> np.ndarray:
    return x.swapaxes(1, 2).reshape(len(x), -1, height, width)


def pool(x: np.ndarray, reduce: Callable[..., np.ndarray], outside: float) -> np.ndarray:
    """Windows of 2x2 on a map of 2x3, stride 1, one pixel above and at the right."""
    grid = np.pad(as_map(x, 2, 3), ((0, 0), (0, 0), (1, 0), (0, 1)), constant_values=outside)
    rows = [grid[:, :, y : y + 2, x : x + 2] for y in range(2) for x in range(3)]
    return np.stack([reduce(row, axis=(2, 3)) for row in rows], 1)


def split(x: np.ndarray, groups: int, heads: int) -> np.ndarray:
    """[N, T, D] to [N, groups, heads, rows, columns]."""
    return x.reshape(len(x), groups, x.shape[1] // groups, heads, -1).transpose(0, 1, 3, 2, 4)


def join(x: np.ndarray) -> np.ndarray:
    n, groups, heads, rows, columns = x.shape
    return x.transpose(0, 1, 3, 2, 4).reshape(n, groups * rows, heads * columns)


def attend(kind: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    q, k, v = (split(x, 2, 2) for x in (Q, K, V))
    return join(kind(0.7 * q @ k.swapaxes(3, 4) + MASK) @ v)


def rms(x: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis, keepdims=True) + 0.1)


def centred(x: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    return rms(x - x.mean(axis, keepdims=True), axis)


def by_head(function: Callable[..., np.ndarray], axis: Any) -> np.ndarray:
    """Two groups of the channels of X."""
    return function(X.reshape(N, T, 2, 2), axis).reshape(X.shape)


def by_window(function: Callable[..., np.ndarray]) -> np.ndarray:
    """Three groups of the rows of X."""
    return function(X.reshape(N, 3, 2, D), 2).reshape(X.shape)


ON_MAP: dict[str, Any] = {"map": [2, 3], "strides": [1, 1], "pads": [1, 0, 0, 1]}
POOLING: dict[str, Any] = {**ON_MAP, "kernel": [2, 2], "count_include_pad": 0}
HEADS2: dict[str, Any] = {"heads": 2, "groups": 2}
CHANNELS, TOKENS = {"axis": "channels", "groups": 2}, {"axis": "tokens", "groups": 3}
Case = tuple[str, list[np.ndarray], dict[str, Any], Callable[[], np.ndarray]]
CASES: list[Case] = [
    ("Rows", [X], {"index": [5, -1, 0, 0]},
     lambda: np.stack([X[:, 5], 0 * X[:, 0], X[:, 0], X[:, 0]], 1)),
    ("Channels", [X], {"index": [3, -1, 0, 0, 1]},
     lambda: np.concatenate([X, 0 * X], -1)[..., [3, 4, 0, 0, 1]]),
    ("Channels", [X[:, 0]], {"index": [2]}, lambda: X[:, 0, 2:3]),
    ("Fold", [X], {"rows": 3}, lambda: X.reshape(N, 2, 3 * D)),
    ("Unfold", [X], {"parts": 2}, lambda: X.reshape(N, 2 * T, 2)),
    ("Unfold", [X[:, 0]], {"parts": 1}, lambda: X[:, :1]),
    ("Transpose", [X], {}, lambda: X.swapaxes(1, 2)),
    ("ConcatRows", [X, Y[:, :2]], {}, lambda: np.concatenate([X, Y[:, :2]], 1)),
    ("ConcatChannels", [X, Y[..., :3]], {}, lambda: np.concatenate([X, Y[..., :3]], 2)),
    ("ConcatChannels", [X[:, 0], Y[:, 1]], {}, lambda: np.concatenate([X[:, 0], Y[:, 1]], 1)),
    ("ConstantRows", [IMAGE, COS], {}, lambda: np.stack([COS, COS])),
    ("ImageConv", [IMAGE, STEM, BIAS[:7]], {"strides": [2, 3], "pads": [1, 0, 2, 1]},
     lambda: convolve(IMAGE, STEM, BIAS[:7], (2, 3), (1, 0, 2, 1))),
    ("Conv", [X, KERNEL, BIAS[:6]], {**ON_MAP, "dilations": [1, 1], "groups": 1},
     lambda: convolve(as_map(X, 2, 3), KERNEL, BIAS[:6], (1, 1), (1, 0, 0, 1))),
    ("Conv", [X, DEPTHWISE, BIAS],
     {"map": [2, 3], "strides": [1, 2], "pads": [2, 2, 2, 2], "dilations": [2, 2], "groups": D},
     lambda: convolve(as_map(X, 2, 3), DEPTHWISE, BIAS, (1, 2), (2, 2, 2, 2), D, 2)),
    ("Conv", [X, KERNEL[:, :, :1, :2], BIAS[:6]],
     {"map": [1, 3], "strides": [1, 1], "pads": [0, 1, 0, 0], "dilations": [1, 1], "groups": 1},
     lambda: np.concatenate([
         convolve(as_map(X[:, i : i + 3], 1, 3), KERNEL[:, :, :1, :2], BIAS[:6], (1, 1),
                  (0, 1, 0, 0)) for i in (0, 3)], 1)),
    ("Pool", [X], {**POOLING, "kind": "max"}, lambda: pool(X, np.max, -np.inf)),
    ("Pool", [X], {**POOLING, "kind": "average"}, lambda: pool(X, np.nanmean, np.nan)),
    ("Pool", [X], {**POOLING, "kind": "average", "count_include_pad": 1},
     lambda: pool(X, np.mean, 0.0)),
    ("RMSNorm", [X, GAMMA], {**CHANNELS, "epsilon": 0.1}, lambda: by_head(rms, 3) * GAMMA),
    ("RMSNorm", [X, GAMMA], {**TOKENS, "epsilon": 0.1}, lambda: by_window(rms) * GAMMA),
    ("HeadNorm", [X, GAMMA, BETA], {**CHANNELS, "epsilon": 0.1},
     lambda: by_head(centred, 3) * GAMMA + BETA),
    ("HeadNorm", [X, GAMMA, BETA], {**TOKENS, "epsilon": 0.1},
     lambda: by_window(centred) * GAMMA + BETA),
    ("GroupNorm", [X, GAMMA, BETA], {"groups": 2, "epsilon": 0.1},
     lambda: by_head(centred, (1, 3)) * GAMMA + BETA),
    ("Affine", [X, SCALE, SHIFT], {}, lambda: X * SCALE + SHIFT),
    ("Product", [Q, K], {**HEADS2, "scale": 0.7, "layout": "nt"},
     lambda: join(0.7 * split(Q, 2, 2) @ split(K, 2, 2).swapaxes(3, 4))),
    ("Product", [Q6, X], {"heads": 2, "groups": 1, "scale": 1.0, "layout": "tn"},
     lambda: join(split(Q6, 1, 2).swapaxes(3, 4) @ split(X, 1, 2))),
    ("Product", [Q, V], {**HEADS2, "scale": 0.7, "layout": "nn"},
     lambda: join(0.7 * split(Q, 2, 2) @ split(V, 2, 2))),
    ("CrossAttention", [Q, K, V, MASK], {**HEADS2, "scale": 0.7, "kind": "softmax"},
     lambda: attend(lambda x: softmax(x, -1))),
    ("CrossAttention", [Q, K, V, MASK], {**HEADS2, "scale": 0.7, "kind": "relu"},
     lambda: attend(lambda x: np.maximum(x, 0))),
    ("RelativeAttention", [Q, K, V, Q[..., :4], Q6[:, :4]],
     {**HEADS2, "scale": 0.7, "x_keys": [1, 0, 1], "y_keys": [2, 0, 2]},
     lambda: join(softmax(
         0.7 * split(Q, 2, 2) @ split(K, 2, 2).swapaxes(3, 4)
         + split(Q[..., :4], 2, 2)[..., [1, 0, 1]] + split(Q6[:, :4], 2, 2)[..., [2, 0, 2]], -1
     ) @ split(V, 2, 2))),
    ("Mix", [X, MATRICES, BIAS_ROWS], HEADS2,
     lambda: join(MATRICES @ split(X, 2, 2) + BIAS_ROWS[:, None])),
    ("Multiply", [X, Y], {}, lambda: X * Y),
    ("Multiply", [X, Y[:, :1]], {}, lambda: X * Y[:, :1]),
    ("Multiply", [X, Y[..., :2]], {}, lambda: X * np.repeat(Y[..., :2], 2, -1)),
    ("Maximum", [X, Y], {}, lambda: np.maximum(X, Y)),
    ("Softmax", [X], CHANNELS, lambda: by_head(softmax, 3)),
    ("Softmax", [X], TOKENS, lambda: by_window(softmax)),
    ("Rotary", [X, COS, SIN], {"partner": [1, 0, 3, 2]},
     lambda: X * COS + X[..., [1, 0, 3, 2]] * SIN),
]  # fmt: skip
