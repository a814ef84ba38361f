"""Every row of the operation table: its function body computes what its one-line doc says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from vitrify.ir import OPS, UNARY, Builder, ShapeError, evaluate, shape_of, tensor, verify

sys.path.insert(0, str(Path(__file__).parent))
from token_cases import CASES as TOKEN_CASES

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


def weigh(logits: np.ndarray, k: int, normalize: int) -> np.ndarray:
    """Softmax of the k largest logits of each token, lowest number first among equals."""
    shares = softmax(logits.astype(np.float64))
    for place in np.ndindex(logits.shape[:2]):
        order = sorted(range(logits.shape[2]), key=lambda e: (-logits[place][e], e))
        shares[place][order[k:]] = 0.0
        shares[place] /= shares[place].sum() if normalize else 1.0
    return shares


def route_heads(q: np.ndarray, k: np.ndarray, v: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Three heads of two channels, scale 0.7, each multiplied by its weight for the token."""
    return attend(q, k, v, 3, 0.7) * np.repeat(weights, 2, axis=-1)


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


def route(
    x: np.ndarray, logits: np.ndarray, *weights: np.ndarray, k: int, normalize: int, kind: str
) -> np.ndarray:
    """Experts token by token, each choice by its own sort: largest first, then lowest number."""
    w1, b1, w2, b2 = (array.astype(np.float64) for array in weights)
    result = np.zeros_like(x, np.float64)
    for place in np.ndindex(x.shape[:2]):
        chosen = sorted(range(len(w1)), key=lambda e: (-logits[place][e], e))[:k]
        share = softmax(logits[place].astype(np.float64))
        share = share / share[chosen].sum() if normalize else share
        for e in chosen:
            hidden = UNARY[kind].reference(w1[e] @ x[place] + b1[e])
            result[place] += share[e] * (w2[e] @ hidden + b2[e])
    return result


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


W, B, PREFIX, POSITION = random(4, D), random(4), random(2, D), random(T + 2, D)
TASK = np.array([2, 0])
BANK, BANK_BIAS = random(3, 4, D), random(3, 4)
# coarse logits: many tokens have equals among their largest
LOGITS = RNG.integers(-2, 3, (N, T, 7)).astype(np.float32)
HEAD_LOGITS, BALANCE = LOGITS[..., :2], random(N, T, 2)
MIXTURE = [random(7, 5, D), random(7, 5), random(7, D, 5), random(7, D)]
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
    "RoutedHeads": (
        [X, X[::-1], X[:, ::-1], HEAD_LOGITS],
        {"heads": 3, "scale": 0.7, "k": 1, "normalize": 0},
        lambda: route_heads(
            X, X[::-1], X[:, ::-1],
            np.concatenate([np.ones((N, T, 1)), weigh(HEAD_LOGITS, 1, 0)], -1),
        ),
    ),
    "BalancedHeads": (
        [X, X[::-1], X[:, ::-1], LOGITS[..., 2:4], random(N, T, 1), BALANCE],
        {"heads": 3, "scale": 0.7, "k": 2, "normalize": 1},
        lambda: route_heads(
            X, X[::-1], X[:, ::-1],
            np.concatenate([np.ones((N, T, 1)) * softmax(BALANCE)[..., :1],
                            weigh(LOGITS[..., 2:4], 2, 1) * softmax(BALANCE)[..., 1:]], -1),
        ),
    ),
    "Activation": ([X], {"kind": "gelu"}, lambda: UNARY["gelu"].reference(X)),
    "Add": ([X, X[::-1]], {}, lambda: X + X[::-1]),
    "SelectToken": ([X], {"index": 3}, lambda: X[:, 3]),
    "Arrange": (
        [X, GAMMA, BETA],
        {"index": np.arange(T * D).reshape(T, D)[1:3].T.ravel().tolist(), "form": [D, 1, 2]},
        lambda: (X * GAMMA + BETA)[:, 1:3].swapaxes(1, 2)[:, :, None],
    ),
    "MeanPool": ([X], {"start": 1, "end": 4}, lambda: X[:, 1:4].mean(1)),
    "TaskLinear": (
        [X, BANK, BANK_BIAS, TASK], {},
        lambda: np.stack([X[n] @ BANK[s].T + BANK_BIAS[s] for n, s in enumerate(TASK)]),
    ),
    "Experts": (
        [X, LOGITS, *MIXTURE], {"k": 2, "normalize": 0, "kind": "gelu"},
        lambda: route(X, LOGITS, *MIXTURE, k=2, normalize=0, kind="gelu"),
    ),
}  # fmt: skip


def run(name: str, arrays: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    op = OPS[name]
    feeds, operands, inputs = {}, [], []
    for formal, array in zip(op.inputs, arrays, strict=True):
        if formal in op.parameters:
            operands.append(array)
        else:
            shape = ["N", *array.shape[1:]] if array.ndim and len(array) == N else array.shape
            kind = ir.DataType.INT64 if formal in op.tasks else ir.DataType.FLOAT
            inputs.append(tensor(f"in_{formal}", shape, kind))
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
    assert set(CASES) | {case[0] for case in TOKEN_CASES} == set(OPS)


@pytest.mark.parametrize("name", CASES)
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


def test_many_shared_and_routed_heads() -> None:
    logits, shared, balance = random(N, T, 4), random(N, T, 2), random(N, T, 2)
    found = run("BalancedHeads", [X, X[::-1], X, logits, shared, balance],
                {"heads": 6, "scale": 1.3, "k": 3, "normalize": 0})  # fmt: skip
    stages = softmax(balance)
    weights = [softmax(shared) * stages[..., :1], weigh(logits, 3, 0) * stages[..., 1:]]
    wanted = attend(X, X[::-1], X, 6, 1.3) * np.concatenate(weights, -1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_every_head_routed() -> None:
    found = run("RoutedHeads", [X, X[::-1], X, LOGITS[..., :3]],
                {"heads": 3, "scale": 0.7, "k": 2, "normalize": 1})  # fmt: skip
    wanted = route_heads(X, X[::-1], X, weigh(LOGITS[..., :3], 2, 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", [np.array(1), np.array([1])], ids=["scalar", "list of one"])
def test_one_task_for_all_pictures(task: np.ndarray) -> None:
    found = run("TaskLinear", [X, BANK, BANK_BIAS, task], {})
    np.testing.assert_allclose(found, X @ BANK[1].T + BANK_BIAS[1], rtol=1e-5, atol=1e-5)


def test_task_of_pooled_tokens() -> None:
    found = run("TaskLinear", [X[:, 0], BANK, BANK_BIAS, TASK], {})
    rows = [BANK[s] @ X[n, 0] + BANK_BIAS[s] for n, s in enumerate(TASK)]
    np.testing.assert_allclose(found, rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["relu", "gelu_tanh"])
def test_experts_of_each_choice(k: int, normalize: int, kind: str) -> None:
    attributes: dict[str, Any] = {"k": k, "normalize": normalize, "kind": kind}
    found = run("Experts", [X, LOGITS, *MIXTURE], attributes)
    wanted = route(X, LOGITS, *MIXTURE, **attributes)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", UNARY)
def test_experts_know_every_activation(kind: str) -> None:
    attributes: dict[str, Any] = {"k": 2, "normalize": 1, "kind": kind}
    wanted = route(X, LOGITS, *MIXTURE, **attributes)
    found = run("Experts", [X, LOGITS, *MIXTURE], attributes)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_bytes_as_image() -> None:
    image = RNG.integers(0, 256, IMAGE.shape).astype(np.uint8)
    builder = Builder([tensor("image", ["N", 3, 4, 6], ir.DataType.UINT8)])
    output = builder.emit(
        "PatchEmbed", builder.graph.inputs[0], KERNEL, np.zeros(7), name="out", patch=[2, 3]
    )
    found = evaluate(builder.model([output]), {"image": image}, ["out"])["out"]
    np.testing.assert_allclose(found, embed(image, KERNEL, np.zeros(7)), rtol=1e-4, atol=1e-2)


ROUTED: list[tuple[int | str, ...]] = [("N", 5, 6), ("N", 5, 7)]
MIXTURE_SHAPES = [array.shape for array in MIXTURE]
QKV: list[tuple[int | str, ...]] = [("N", 5, 6)] * 3
HEADS3: dict[str, Any] = {"heads": 3, "scale": 1.0, "k": 2, "normalize": 0}
TOP2: dict[str, Any] = {"k": 2, "normalize": 0, "kind": "gelu"}
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
    (
        "Arrange", [("N", 5, 6), (6,), (6,)], {"index": [0, 30], "form": [2]},
        "outside the 30 elements",
    ),
    ("Arrange", [("N", 5, 6), (6,), (6,)], {"index": [0, 1], "form": [3]}, "2 do not make"),
    ("Arrange", [("N", 5, 6), (5,), (6,)], {"index": [0, 1], "form": [2]}, "do not fit x"),
    ("TaskLinear", [("N", 5, 6), (3, 4, 5), (3, 4), ("N",)], {}, "5 columns, its input 6"),
    ("TaskLinear", [("N", 5, 6), (3, 4, 6), (4,), ("N",)], {}, r"bias has shape \(4,\)"),
    ("TaskLinear", [("N", 5, 6), (3, 4, 6), (3, 4), (3,)], {}, r"task has shape \(3,\)"),
    ("RoutedHeads", [*QKV, ("N", 5, 4)], HEADS3, "4 logits are more than 3 heads"),
    ("RoutedHeads", [*QKV, ("N", 4, 2)], HEADS3, "do not fit q"),
    ("RoutedHeads", [*QKV, ("N", 5, 2)], HEADS3 | {"k": 3}, "k 3 is not 1 to 2"),
    ("BalancedHeads", [*QKV, ("N", 5, 2), ("N", 5, 2), ("N", 5, 2)], HEADS3, "shared logits have"),
    ("BalancedHeads", [*QKV, ("N", 5, 2), ("N", 5, 1), ("N", 5, 1)], HEADS3, "the balance has"),
    ("Experts", [("N", 5, 6), ("N", 5, 8), *MIXTURE_SHAPES], TOP2, r"8\), not \('N', 5, 7"),
    ("Experts", [("N", 6), ("N", 7), *MIXTURE_SHAPES], TOP2, r"\[N, T, D\] is needed"),
    ("Experts", [*ROUTED, *MIXTURE_SHAPES], TOP2 | {"k": 5}, "k 5 is not 1 to 4"),
    ("Experts", [*ROUTED, *MIXTURE_SHAPES], TOP2 | {"normalize": 2}, "normalize 2 is not"),
    ("Experts", [*ROUTED, *MIXTURE_SHAPES], TOP2 | {"kind": "snake"}, "'snake' is none of"),
    ("Experts", [*ROUTED, *MIXTURE_SHAPES[:3], (7, 5)], TOP2, r"b2 has shape \(7, 5\)"),
    ("Experts", [*ROUTED, (7, 5, 8), *MIXTURE_SHAPES[1:]], TOP2, "8 columns, its input 6"),
    ("MeanPool", [("N", 5, 6)], {"start": 3, "end": 3}, "3:3 is outside"),
    ("MeanPool", [("N", 6)], {"start": 0, "end": 1}, r"but \[N, T, D\] is needed"),
]


@pytest.mark.parametrize(("name", "shapes", "attributes", "words"), WRONG)
def test_wrong_shape_is_named(name, shapes, attributes, words) -> None:
    with pytest.raises(ShapeError, match=words):
        OPS[name].shape(shapes, attributes)
