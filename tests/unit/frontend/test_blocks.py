"""Published blocks, exported both ways: the same canonical operations, and the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from agree import assert_agrees, kinds, within

from vitrify.frontend import load

FOLDER = Path(__file__).parents[2] / "data" / "tokens"
FILES = sorted(FOLDER.glob("*.onnx"))
SEED = 6
#: Operations that a block must become, in order, among others.
WANTED = {
    "channel_attention": ["RMSNorm", "RMSNorm", "Product", "Softmax", "Product"],
    "clipped_softmax": ["Product", "Softmax", "Activation", "Product", "Multiply"],
    "cosine": ["RMSNorm", "RMSNorm", "Attention"],
    "efficient_attention": ["Softmax", "Softmax", "Product", "Product"],
    "gated_positions": ["CrossAttention", "Mix", "Add"],
    "head_norms": ["HeadNorm", "HeadNorm", "Attention"],
    "inverted": ["ImageConv", "Linear", "Activation", "Conv", "Pool", "MeanPool", "Multiply"],
    "learned": ["ConstantRows", "CrossAttention"],
    "linear_attention": ["Product", "Product", "Multiply"],
    "pooling": ["GroupNorm", "Mix", "Mix"],
    "pyramid": ["Conv", "Mix"],
    "query_temperature": ["Product", "Multiply", "Softmax", "Product"],
    "reduced": ["Conv", "CrossAttention"],
    "relu_linear": ["Product", "Product", "Product", "Product", "Multiply"],
    "relu_attention": ["Product", "Activation", "Product"],
    "rotary": ["Rotary", "Rotary", "Attention"],
    "shifted_windows": ["Rows", "CrossAttention", "Rows", "Fold", "LayerNorm", "Linear"],
    "sigmoid_attention": ["Product", "Activation", "Product"],
    "softplus_attention": ["Product", "Activation", "Product", "Multiply"],
    "spatial_gate": ["LayerNorm", "Mix", "Multiply"],
    "talking_heads": ["Linear", "CrossAttention", "Linear"],
    "token_mlp": ["Mix", "Activation", "Mix"],
}


def images(model: ir.Model) -> dict[str, np.ndarray]:
    value = model.graph.inputs[0]
    assert value.shape is not None
    shape = [size if isinstance(size, int) else 3 for size in value.shape]
    return {value.name or "": np.random.default_rng(SEED).standard_normal(shape, np.float32)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_block_agrees(path: Path) -> None:
    model = load(path)
    found = kinds(assert_agrees(model, images(model)))
    wanted = WANTED[path.stem.rpartition("_")[0]]
    assert within(wanted, found), found
    if "pooling" not in path.stem and "inverted" not in path.stem and "pyramid" not in path.stem:
        # x * rsqrt(mean of squares), and the gated MLP of every block
        assert "learned" in path.stem or {"RMSNorm", "Multiply"} <= set(found), found


def test_every_block_has_two_exports() -> None:
    assert {path.stem for path in FILES} == {f"{n}_{e}" for n in WANTED for e in ("ts", "dynamo")}
