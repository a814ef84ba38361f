"""What ``vitrify info`` counts in a canonical graph, and what it says of quantised models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from vitrify.cli.info import _macs, of_model
from vitrify.ir import Builder, tensor

WINDOW = {"strides": [1, 1], "pads": [0, 0, 0, 0]}
#: Operation, shapes of an image's operands and of its parameters, attributes, multiplications.
COUNTS: list[tuple[str, list[tuple[int, ...]], list[tuple[int, ...]], dict[str, Any], int]] = [
    ("PatchEmbed", [(3, 8, 8)], [(5, 48), (5,)], {"patch": [4, 4]}, 4 * 5 * 48),
    ("Linear", [(6, 4)], [(5, 4), (5,)], {}, 6 * 5 * 4),
    ("ImageConv", [(3, 6, 6)], [(7, 3, 3, 2), (7,)], WINDOW, 4 * 5 * 7 * 3 * 3 * 2),
    ("Conv", [(12, 4)], [(8, 1, 2, 2), (8,)],
     {**WINDOW, "map": [2, 3], "dilations": [1, 1], "groups": 4}, 2 * 2 * 8 * 4),
    ("Mix", [(6, 4)], [(2, 5, 3), (5,)], {"heads": 2, "groups": 2}, 10 * 4 * 3),
    ("Attention", [(6, 4)] * 3, [], {"heads": 2, "scale": 1.0}, 2 * 6 * 6 * 4),
    ("RoutedHeads", [(6, 8)] * 3 + [(6, 3)], [],
     {"heads": 4, "scale": 1.0, "k": 1, "normalize": 0}, 2 * 6 * 6 * 8 * 2 // 4),
    ("CrossAttention", [(4, 6), (6, 6), (6, 8)], [(1, 1, 1, 1)],
     {"heads": 2, "groups": 2, "scale": 1.0, "kind": "softmax"}, 4 * 3 * (6 + 8)),
    ("Product", [(4, 6), (6, 6)], [], {"heads": 2, "groups": 2, "scale": 1.0, "layout": "nt"},
     2 * 2 * (2 * 3 * 3)),
    ("Product", [(4, 6), (6, 4)], [], {"heads": 2, "groups": 2, "scale": 1.0, "layout": "nn"},
     2 * 2 * (2 * 3 * 2)),
    ("Product", [(6, 6), (6, 4)], [], {"heads": 2, "groups": 1, "scale": 1.0, "layout": "tn"},
     2 * (3 * 6 * 2)),
    ("Experts", [(6, 4), (6, 3)], [(3, 5, 4), (3, 5), (3, 4, 5), (3, 4)],
     {"k": 2, "normalize": 0, "kind": "relu"}, 6 * 2 * (2 * 5 * 4)),
    ("Add", [(6, 4)] * 2, [], {}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("op", "shapes", "parameters", "attributes", "wanted"), COUNTS)
def test_multiplications(
    op: str, shapes: list[tuple[int, ...]], parameters: list[tuple[int, ...]],
    attributes: dict[str, Any], wanted: int,
) -> None:  # fmt: skip
    operands = [tensor(f"x{place}", ["N", *shape]) for place, shape in enumerate(shapes)]
    constants = [np.ones(shape, np.float32) for shape in parameters]
    made = Builder(operands).emit(op, *operands, *constants, **attributes)
    assert _macs(made.producer()) == wanted


def test_saturation_is_guessed_without_images(tmp_path: Path) -> None:
    head = '<ir_version: 9, opset_import: ["": 18]> m (float[1,3,8,8] image) => (float[1,5,2,2] y)'
    body = "<float s = {0.1}, uint8 z = {0}> { %s y = Conv<strides = [4, 4]>(x, w) }"
    weights = onnx.numpy_helper.from_array(np.ones((5, 3, 4, 4), np.float32), "w")
    pair = "q = QuantizeLinear(image, s, z)  x = DequantizeLinear(q, s, z)"
    for text, said in ((pair, True), ("x = Relu(image)", False)):
        whole = onnx.parser.parse_model(f"{head} {body % text}")
        whole.graph.initializer.append(weights)
        onnx.save(whole, tmp_path / "m.onnx")
        facts = of_model(tmp_path / "m.onnx")
        assert (facts["on the core"], "saturation" in facts) == ("yes", said)
