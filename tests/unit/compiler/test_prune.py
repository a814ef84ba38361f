"""Pruning by a list: what is left computes what the model does with zeros in those places."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from vitrify.arch.errors import InputError
from vitrify.compiler.prune import main, prune
from vitrify.frontend import canonicalise, load
from vitrify.ir import array_of, evaluate, shape_of

DATA = Path(__file__).parents[2] / "data"


def canonical(name: str) -> ir.Model:
    return canonicalise(load(DATA / f"{name}.onnx"))


def first(model: ir.Model, op_type: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == op_type)


def outputs(model: ir.Model) -> np.ndarray:
    image = model.graph.inputs[0]
    shape = [2, *(int(size) for size in shape_of(image)[1:])]
    feeds = {image.name or "": np.random.default_rng(8).standard_normal(shape, np.float32)}
    name = model.graph.outputs[0].name or ""
    return evaluate(model, feeds, [name])[name]


def test_heads(tmp_path: Path) -> None:
    model = canonical("timm_ts17")
    node = first(model, "Attention")
    heads = node.attributes["heads"].as_int()
    pruned = prune(model, [f"{node.name} heads 0  # the first"])
    # the projection's columns of that head are what zeros in its place leave out
    (use,) = node.outputs[0].uses()
    weight = use.node.inputs[1]
    assert weight is not None
    zeroed = array_of(weight).copy()
    zeroed[:, : zeroed.shape[1] // heads] = 0
    weight.const_value = ir.tensor(zeroed, name=weight.name)
    np.testing.assert_allclose(outputs(pruned), outputs(model), atol=1e-5)
    ir.save(pruned, tmp_path / "pruned.onnx")
    again = canonicalise(load(tmp_path / "pruned.onnx"))
    assert first(again, "Attention").attributes["heads"].as_int() == heads - 1
    assert [n.op_type for n in again.graph] == [n.op_type for n in model.graph]


def test_experts() -> None:
    model = canonical("moe_masked_ts13")
    node = first(model, "Experts")
    pruned = prune(model, [f"{node.name} experts 1,3"])
    left = first(pruned, "Experts")
    count = len(array_of(node.inputs[2]))  # type: ignore[arg-type]  # an expert's weights
    assert len(array_of(left.inputs[2])) == count - 2  # type: ignore[arg-type]  # as above
    # gates that never choose those two
    bias = node.inputs[1].producer().inputs[2]  # type: ignore[union-attr]  # a gate is a layer
    assert bias is not None
    low = array_of(bias).copy()
    low[[1, 3]] = -1e4
    bias.const_value = ir.tensor(low, name=bias.name)
    np.testing.assert_allclose(outputs(pruned), outputs(model), atol=1e-5)


def test_branch() -> None:
    model = canonical("timm_ts17")
    node = first(model, "Add")
    pruned = prune(model, [f"{node.name} branch"])
    assert len(list(pruned.graph)) < len(list(model.graph)) - 3
    assert outputs(pruned).shape == outputs(model).shape


@pytest.mark.parametrize(
    ("line", "words"),
    [("x heads 0", "'x' is no Attention of the canonical graph; there are: "),
     ("{} heads 9", "the heads are numbered 0 to"), ("{} heads a", "the heads are numbered 0 to"),
     ("{} experts 0", "is no Experts of the canonical graph; there are: none"),
     ("{} tails 0", "is no line of a pruning list"), ("{} heads", "is no line of a pruning list")],
)  # fmt: skip
def test_lines_that_are_none(line: str, words: str) -> None:
    model = canonical("timm_ts17")
    with pytest.raises(InputError, match=words):
        prune(model, [line.format(first(model, "Attention").name)])


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DATA / "timm_ts17.onnx"
    (tmp_path / "list").write_text(f"{first(canonical('timm_ts17'), 'Attention').name} heads 1\n")
    arguments = [str(model), str(tmp_path / "list"), "-o", str(tmp_path / "out.onnx")]
    monkeypatch.setattr(sys, "argv", ["prune", *arguments])
    main()
    assert outputs(canonicalise(load(tmp_path / "out.onnx"))).shape[0] == 2
    monkeypatch.setattr(sys, "argv", ["prune", str(model), str(tmp_path / "none"), *arguments[2:]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
