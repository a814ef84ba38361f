"""Operations on token tensors: each function body computes what its one-line doc says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrify.ir import OPS, Builder, ShapeError, evaluate, shape_of, tensor, verify

sys.path.insert(0, str(Path(__file__).parent))
from token_cases import CASES

Shape = tuple[int | str, ...]


@pytest.mark.parametrize(
    ("name", "arrays", "attributes", "reference"),
    CASES,
    ids=[f"{case[0]}_{number}" for number, case in enumerate(CASES)],
)
def test_body_computes_the_operation(
    name: str,
    arrays: list[np.ndarray],
    attributes: dict[str, Any],
    reference: Callable[[], np.ndarray],
) -> None:
    op = OPS[name]
    feeds, operands = {}, []
    for formal, array in zip(op.inputs, arrays, strict=True):
        if formal in op.parameters:
            operands.append(array)
            continue
        operands.append(tensor(f"in_{formal}", ["N", *array.shape[1:]]))
        feeds[f"in_{formal}"] = np.ascontiguousarray(array)
    builder = Builder([value for value in operands if not isinstance(value, np.ndarray)])
    output = builder.emit(name, *operands, name="out", **attributes)
    model = builder.model([output])
    verify(model)
    if name == "ConstantRows":
        feeds = {"in_x": arrays[0]}
    result = evaluate(model, feeds, ["out"])["out"]
    np.testing.assert_allclose(result, reference(), rtol=1e-5, atol=2e-6)
    assert shape_of(output) == ("N", *result.shape[1:])


X: Shape = ("N", 6, 4)
MAP = {"map": [2, 3], "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "groups": 1}
HEADS = {"heads": 2, "groups": 1, "scale": 1.0}
WRONG: list[tuple[str, list[Shape], dict[str, Any], str]] = [
    ("Rows", [X], {"index": [6]}, r"index 6\.\.6 is outside the 6 tokens"),
    ("Channels", [X], {"index": [-2]}, "outside the 4 channels"),
    ("Channels", [X], {"index": []}, "empty"),
    ("Fold", [X], {"rows": 4}, "4 rows do not divide 6 tokens"),
    ("Unfold", [X], {"parts": 3}, "3 parts do not divide 4 channels"),
    ("ConcatRows", [X, ("N", 6, 3)], {}, "do not fit"),
    ("ConcatChannels", [X, ("N", 5, 4)], {}, "do not fit"),
    ("ConstantRows", [X, (4,)], {}, r"\[T, D\] is needed"),
    ("ImageConv", [("N", 3, 5, 5), (7, 4, 3, 3), (7,)], {"strides": [1, 1], "pads": [0] * 4},
     "takes 4 channels, the image has 3"),
    ("Conv", [X, (4, 4, 3, 3), (4,)], MAP, r"kernel of \(3, 3\) is larger"),
    ("Conv", [X, (4, 3, 1, 1), (4,)], MAP, "1 groups of 3 channels are not 4"),
    ("Conv", [X, (4, 4, 1, 1), (4,)], {**MAP, "map": [2, 2]}, "do not make up 6 pixels"),
    ("Pool", [X], {**MAP, "kernel": [1, 1], "kind": "least", "count_include_pad": 0}, "'least'"),
    ("RMSNorm", [X, (4,)], {"axis": "rows", "groups": 1, "epsilon": 0.1}, "'rows' is not channels"),
    ("RMSNorm", [X, (4,)], {"axis": "tokens", "groups": 4, "epsilon": 0.1}, "do not divide 6"),
    ("HeadNorm", [X, (4,), (3,)], {"axis": "tokens", "groups": 1, "epsilon": 0.1}, "does not fit"),
    ("Affine", [X, (1, 4), (2, 1)], {}, r"shift has shape \(2, 1\)"),
    ("Product", [X, ("N", 5, 6)], {**HEADS, "layout": "nt"}, "cannot be multiplied"),
    ("Product", [X, X], {**HEADS, "layout": "tt"}, "'tt' is none of nn, nt, tn"),
    ("CrossAttention", [X, X, X, (1, 3, 1, 1)], {**HEADS, "kind": "softmax"}, "does not fit"),
    ("CrossAttention", [X, X, ("N", 5, 4), (1, 1, 1, 1)], {**HEADS, "kind": "softmax"},
     "6 keys and 5 values"),
    ("CrossAttention", [X, X, X, (1, 1, 1, 1)], {**HEADS, "kind": "hard"}, "'hard' is none of"),
    ("Mix", [X, (1, 3, 6), (3,)], {"heads": 2, "groups": 1}, "1 matrices"),
    ("Mix", [X, (2, 3, 5), (3,)], {"heads": 2, "groups": 1}, "takes 5 rows, a group has 6"),
    ("Multiply", [X, ("N", 3, 4)], {}, "does not fit"),
    ("Maximum", [X, ("N", 6, 2)], {}, "differ"),
    ("Softmax", [X], {"axis": "channels", "groups": 3}, "3 groups do not divide 4 channels"),
    ("Rotary", [X, (6, 4), (6, 4)], {"partner": [0, 1, 2, 2]}, "no permutation"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shapes", "attributes", "message"), WRONG)
def test_wrong_shapes_are_refused(
    name: str, shapes: list[Shape], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        OPS[name].shape(shapes, attributes)
