"""Pruning by a list: what is left computes what the model does with zeros in those places."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.errors import InputError
from vitrify.compiler.prune import main, prune
from vitrify.frontend import canonicalise, load
from vitrify.ir import array_of, evaluate, shape_of
from vitrify.quant.decompose import inputs

DATA = Path(__file__).parents[2] / "data"


def canonical(name: str) -> ir.Model:
    return canonicalise(load(DATA / f"{name}.onnx"))


def first(model: ir.Model, op_type: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == op_type)


def maker(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


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
    weight = inputs(use.node)[1]
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
    _, logits, first_weights, *_ = inputs(node)
    left = inputs(first(pruned, "Experts"))[2]
    assert len(array_of(left)) == len(array_of(first_weights)) - 2
    # gates that never choose those two
    _, _, bias = inputs(maker(logits))
    low = array_of(bias).copy()
    low[[1, 3]] = -1e4
    bias.const_value = ir.tensor(low, name=bias.name)
    np.testing.assert_allclose(outputs(pruned), outputs(model), atol=1e-5)


def test_branches() -> None:
    """Both of a block; without them it computes what it does with layers of zeros at their ends."""
    model = canonical("timm_ts17")
    adds = [node for node in model.graph if node.op_type == "Add"][:2]
    pruned = prune(model, [f"{node.name} branch" for node in adds])
    assert len(list(pruned.graph)) < len(list(model.graph)) - 6
    for node in adds:
        (last,) = [maker(value) for value in inputs(node) if maker(value).op_type == "Linear"]
        for value in inputs(last)[1:]:
            value.const_value = ir.tensor(np.zeros_like(array_of(value)), name=value.name)
    np.testing.assert_allclose(outputs(pruned), outputs(model), atol=1e-5)


def parallel() -> ir.Model:
    """Two branches of one stream, both made before the first is added to it."""
    net = Net(3)
    x = net.tokens()
    f, g = (net.linear(x, DIM, name) for name in "fg")
    both = net.builder.emit("Add", net.builder.emit("Add", x, f, name="first"), g, name="second")
    return net.model(both)


@pytest.mark.parametrize("names", [["first"], ["second"], ["first", "second"]])
def test_parallel_branches(names: list[str]) -> None:
    model = parallel()
    pruned = prune(model, [f"{name} branch" for name in names])
    for name in names:
        layer = next(node for node in model.graph if node.name == {"first": "f"}.get(name, "g"))
        for value in inputs(layer)[1:]:
            value.const_value = ir.tensor(np.zeros_like(array_of(value)), name=value.name)
    np.testing.assert_allclose(outputs(pruned), outputs(model), atol=1e-5)


def test_a_sum_without_a_stream() -> None:
    net = Net(3)
    x = net.tokens()
    f, g = (net.linear(x, DIM, name) for name in "fg")
    model = net.model(net.builder.emit("Add", f, g, name="sum"))
    with pytest.raises(InputError, match="'sum' adds 'f' and 'g', neither of which is made from"):
        prune(model, ["sum branch"])


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


def test_a_node_in_two_lines() -> None:
    model = canonical("timm_ts17")
    name = first(model, "Attention").name
    with pytest.raises(InputError, match=f"'{name}' is in the pruning list twice"):
        prune(model, [f"{name} heads 0", f"{name} heads 1"])


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["prune", *map(str, arguments)])
    main()


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, lines, out = DATA / "timm_ts17.onnx", tmp_path / "list", tmp_path / "out.onnx"
    lines.write_text(f"{first(canonical('timm_ts17'), 'Attention').name} heads 1\n")
    command(monkeypatch, model, lines, "-o", out)
    assert outputs(canonicalise(load(out))).shape[0] == 2


@pytest.mark.parametrize(("content", "output", "sentence"), [
    (None, "out.onnx", "cannot read the pruning list"),
    (b"\xff heads 0", "out.onnx", "cannot read the pruning list"),
    (b"x heads 0", "out.onnx", "'x' is no Attention"),
    (b"", "gone/out.onnx", "does not exist"),
    (b"", "list", "it is an input"),
])  # fmt: skip
def test_errors_of_the_command(
    content: bytes | None, output: str, sentence: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    before = {} if content is None else {"list": content}
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SystemExit) as ended:
        command(
            monkeypatch, DATA / "timm_ts17.onnx", tmp_path / "list", "-o", tmp_path / output
        )
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitrify: ")
    assert sentence in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
