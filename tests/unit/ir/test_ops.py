"""Every row of the operation table: its function body computes what its one-line doc says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vitrify.ir import OPS, UNARY, Builder, evaluate, shape_of, tensor, verify
from vitrify.ir.ops import ShapeError

SEED = 2
N, T, D = 2, 5, 6
RNG = np.random.default_rng(SEED)
X = RNG.standard_normal((N, T, D)).astype(np.float32)
IMAGE = RNG.standard_normal((N, 3, 4, 6)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, scale: float) -> np.ndarray:
    result = np.empty_like(q)
    for part in np.split(np.arange(q.shape[-1]), heads):
        scores = scale * q[..., part] @ k[..., part].swapaxes(1, 2)
        result[..., part] = softmax(scores) @ v[..., part]
    return result


def embed(image: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    rows = [
        image[:, :, y : y + 2, x : x + 3].reshape(N, -1) @ weight.T + bias
        for y in (0, 2)
        for x in (0, 3)
    ]
    return np.stack(rows, axis=1)


def normal(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float) -> np.ndarray:
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + epsilon) * gamma + beta


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


W, B, PREFIX, POSITION = random(4, D), random(4), random(2, D), random(T + 2, D)
KERNEL, GAMMA, BETA = random(7, 18), random(D), random(D)
CASES: dict[str, tuple[list[np.ndarray], dict[str, Any], Callable[[], np.ndarray]]] = {
    "PatchEmbed": (
        [IMAGE, KERNEL, random(7) * 0 + 1], {"patch": [2, 3]},
        lambda: embed(IMAGE, KERNEL, np.ones(7)),
    ),
    "Tokens": (
        [X, PREFIX, POSITION], {},
        lambda: np.concatenate([np.broadcast_to(PREFIX, (N, 2, D)), X], 1) + POSITION,
    ),
    "LayerNorm": ([X, GAMMA, BETA], {"epsilon": 0.1}, lambda: normal(X, GAMMA, BETA, 0.1)),
    "Linear": ([X, W, B], {}, lambda: X @ W.T + B),
    "Attention": (
        [X, X[::-1], X[:, ::-1]], {"heads": 2, "scale": 0.7},
        lambda: attend(X, X[::-1], X[:, ::-1], 2, 0.7),
    ),
    "Activation": ([X], {"kind": "gelu"}, lambda: UNARY["gelu"].reference(X)),
    "Add": ([X, X[::-1]], {}, lambda: X + X[::-1]),
    "SelectToken": ([X], {"index": 3}, lambda: X[:, 3]),
    "MeanPool": ([X], {"start": 1, "end": 4}, lambda: X[:, 1:4].mean(1)),
}  # fmt: skip


def run(name: str, arrays: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    op = OPS[name]
    feeds, operands, inputs = {}, [], []
    for formal, array in zip(op.inputs, arrays, strict=True):
        if formal in op.parameters:
            operands.append(array)
        else:
            inputs.append(tensor(f"in_{formal}", ["N", *array.shape[1:]]))
            operands.append(inputs[-1])
            feeds[f"in_{formal}"] = np.ascontiguousarray(array)
    builder = Builder(inputs)
    output = builder.emit(name, *operands, name="out", **attributes)
    model = builder.model([output])
    verify(model)
    result = evaluate(model, feeds, ["out"])["out"]
    assert shape_of(output) == ("N", *result.shape[1:])
    return result


def test_every_operation_has_a_case() -> None:
    assert set(CASES) == set(OPS)


@pytest.mark.parametrize("name", OPS)
def test_body_computes_the_operation(name: str) -> None:
    arrays, attributes, reference = CASES[name]
    np.testing.assert_allclose(run(name, arrays, attributes), reference(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", UNARY)
def test_activation_body_is_its_reference(kind: str) -> None:
    x = np.linspace(-9, 9, N * T * D).reshape(N, T, D).astype(np.float32)
    found = run("Activation", [x], {"kind": kind})
    np.testing.assert_allclose(found, UNARY[kind].reference(x), rtol=2e-5, atol=2e-6)


def test_no_tokens_in_front() -> None:
    found = run("Tokens", [X, np.zeros((0, D), np.float32), POSITION[:T]], {})
    np.testing.assert_allclose(found, X + POSITION[:T], rtol=1e-6)


def test_linear_on_pooled_tokens() -> None:
    np.testing.assert_allclose(run("Linear", [X[:, 0], W, B], {}), X[:, 0] @ W.T + B, rtol=1e-5)


def test_bytes_as_image() -> None:
    image = RNG.integers(0, 256, IMAGE.shape).astype(np.uint8)
    import onnx_ir as ir

    builder = Builder([tensor("image", ["N", 3, 4, 6], ir.DataType.UINT8)])
    output = builder.emit(
        "PatchEmbed", builder.graph.inputs[0], KERNEL, np.zeros(7), name="out", patch=[2, 3]
    )
    found = evaluate(builder.model([output]), {"image": image}, ["out"])["out"]
    np.testing.assert_allclose(found, embed(image, KERNEL, np.zeros(7)), rtol=1e-4, atol=1e-2)


WRONG: list[tuple[str, list[tuple[int | str, ...]], dict[str, Any], str]] = [
    ("PatchEmbed", [("N", 3, 5, 6), (7, 18), (7,)], {"patch": [2, 3]}, r"\(2, 3\) do not tile"),
    ("PatchEmbed", [("N", 3, 4, 6), (7, 17), (7,)], {"patch": [2, 3]}, "17 columns, a patch 18"),
    ("Tokens", [("N", 5, 6), (1, 6), (5, 6)], {}, r"position has shape \(5, 6\), not \(6, 6\)"),
    ("LayerNorm", [("N", 5, 6), (6,), (5,)], {"epsilon": 1e-5}, "do not fit"),
    ("LayerNorm", [("N", 5, 6), (6,), (6,)], {"epsilon": 0.0}, "not positive"),
    ("Linear", [("N", 5, 6), (4, 5), (4,)], {}, "5 columns, its input 6"),
    ("Linear", [("N", 5, 6), (4, 6), (3,)], {}, r"bias has shape \(3,\)"),
    ("Attention", [("N", 5, 6)] * 3, {"heads": 4, "scale": 1.0}, "4 heads do not divide 6"),
    ("Attention", [("N", 5, 6), ("N", 4, 6), ("N", 5, 6)], {"heads": 2, "scale": 1.0}, "differ"),
    ("Activation", [("N", 5, 6)], {"kind": "snake"}, "'snake' is none of gelu"),
    ("Add", [("N", 5, 6), ("N", 6)], {}, "differ"),
    ("SelectToken", [("N", 5, 6)], {"index": 5}, "index 5 is outside the 5 tokens"),
    ("MeanPool", [("N", 5, 6)], {"start": 3, "end": 3}, "3:3 is outside"),
    ("MeanPool", [("N", 6)], {"start": 0, "end": 1}, r"but \[N, T, D\] is needed"),
]


@pytest.mark.parametrize(("name", "shapes", "attributes", "words"), WRONG)
def test_wrong_shape_is_named(name, shapes, attributes, words) -> None:
    with pytest.raises(ShapeError, match=words):
        OPS[name].shape(shapes, attributes)
