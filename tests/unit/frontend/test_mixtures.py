"""Mixtures of experts in every spelling of every exporter, and as one operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from agree import assert_agrees, kinds

from vitrify.frontend import ModelInputError, canonicalise, load
from vitrify.frontend.inputs import task_inputs
from vitrify.frontend.mixed import Gate
from vitrify.frontend.routing import recognise, weights_of
from vitrify.frontend.values import Unfit
from vitrify.ir import attributes_of, evaluate, shape_of, tensor

DATA = Path(__file__).parents[2] / "data"
FIXTURES = sorted(DATA.glob("moe_*.onnx"))
SEED = 6
EXPERTS, HIDDEN, DIM, TASKS, BLOCKS = 5, 18, 16, 3, 2
#: What the router of each spelling does: k, normalize, and the experts' activation.
ROUTERS = {
    "masked": (2, 0, "gelu"), "one_hot": (2, 1, "gelu"), "scattered": (2, 1, "silu"),
    "einsum": (2, 1, "relu"), "batched": (2, 0, "gelu_tanh"), "chosen": (2, 0, "gelu"),
    "picked": (2, 1, "gelu"), "assigned": (1, 0, "gelu"), "tasks": (2, 0, "gelu"),
    "task_for_all": (2, 1, "gelu"),
}  # fmt: skip


def feeds_of(model: ir.Model, count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    feeds = {}
    for value in model.graph.inputs:
        shape = [size if isinstance(size, int) else count for size in shape_of(value)]
        if value.dtype == ir.DataType.INT64:
            feeds[value.name or ""] = rng.integers(0, TASKS, shape)
        else:
            feeds[value.name or ""] = rng.standard_normal(shape, np.float32)
    return feeds


def spelling(path: Path) -> str:
    return path.stem.removeprefix("moe_").rpartition("_")[0]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_export_agrees(path: Path) -> None:
    model = load(path)
    canonical = assert_agrees(model, feeds_of(model))
    operations = kinds(canonical)
    tasked, shared = bool(task_inputs(model)), spelling(path) == "masked"
    assert operations.count("Experts") == BLOCKS
    assert operations.count("Attention") == BLOCKS
    # a gate a block, and the head
    assert operations.count("TaskLinear") == (BLOCKS + 1) * tasked
    assert operations.count("Linear") == 4 * BLOCKS + (BLOCKS + 1) * (not tasked) + 4 * shared
    assert operations.count("Add") == (2 + shared) * BLOCKS
    for node in canonical.graph:
        if node.op_type == "Experts":
            found = attributes_of(node)
            assert (found["k"], found["normalize"], found["kind"]) == ROUTERS[spelling(path)]
            shapes = [shape_of(value) for value in node.inputs if value is not None]
            assert shapes[2:4] == [(EXPERTS, HIDDEN, DIM), (EXPERTS, HIDDEN)]
        if node.op_type == "TaskLinear":
            assert shape_of(node.inputs[1])[0] == TASKS


def test_every_spelling_has_a_fixture() -> None:
    assert {spelling(path) for path in FIXTURES} == set(ROUTERS)


def test_two_exporters_give_the_same_graph() -> None:
    one, other = (
        canonicalise(load(DATA / f"moe_{name}.onnx")) for name in ("picked_ts17", "picked_dynamo18")
    )
    assert kinds(one) == kinds(other)
    experts = [
        [value.const_value.numpy() for value in node.inputs[2:] if value and value.const_value]
        for model in (one, other)
        for node in model.graph
        if node.op_type == "Experts"
    ]
    for mine, twin in zip(experts[:BLOCKS], experts[BLOCKS:], strict=True):
        for array, same in zip(mine, twin, strict=True):
            np.testing.assert_allclose(array, same, rtol=1e-5, atol=1e-6)


def test_names_are_those_of_the_modules() -> None:
    names = [node.name for node in canonicalise(load(DATA / "moe_one_hot_ts17.onnx")).graph]
    assert names[9:13] == [
        "blocks.0.norm2", "blocks.0.gate", "blocks.0.mixture.experts", "blocks.0.mixture.add",
    ]  # fmt: skip


def test_shared_expert_goes_to_the_residual_stream_first() -> None:
    operations = kinds(canonicalise(load(DATA / "moe_masked_ts13.onnx")))
    first = operations.index("Experts")
    assert operations[first - 5 : first + 2] == [
        "Linear", "Linear", "Activation", "Linear", "Add", "Experts", "Add",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["moe_tasks_ts17", "moe_task_for_all_dynamo20"])
def test_every_task_gives_its_own_result(name: str) -> None:
    model = load(DATA / f"{name}.onnx")
    canonical = canonicalise(model)
    feeds, output = feeds_of(model), model.graph.outputs[0].name or ""
    results = []
    for task in range(TASKS):
        feeds["task"] = np.full_like(feeds["task"], task)
        found = evaluate(canonical, feeds, [output])[output]
        wanted = evaluate(model, feeds, [output])[output]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
        results.append(found)
    assert all(np.abs(results[i] - results[i - 1]).max() > 0.01 for i in range(TASKS))


def test_task_of_a_wrong_size(tmp_path: Path) -> None:
    model = load(DATA / "moe_tasks_ts17.onnx")
    image, task = model.graph.inputs
    image.shape, task.shape = ir.Shape([4, 3, 16, 16]), ir.Shape([3])
    ir.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelInputError, match=r"Task input 'task' has the shape \[3\]"):
        load(tmp_path / "model.onnx")


def gate(width: int, rows: int = 40) -> np.ndarray:
    return np.concatenate(Gate.of(tensor("logits", ["N", width]), rows, width, 0).draws)


@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize(("experts", "k"), [(2, 1), (6, 2), (16, 4), (64, 3)])
def test_router_is_recognised(experts: int, k: int, normalize: int) -> None:
    logits = gate(experts)
    order = np.random.default_rng(SEED).permutation(experts)
    found = recognise(3.0 * weights_of(logits, k, normalize)[:, order], logits)
    assert (found.k, found.normalize) == (k, normalize)
    np.testing.assert_array_equal(found.expert, order)
    np.testing.assert_allclose(found.factor, 3.0)


OTHER_ROUTERS = {
    "sigmoid": lambda logits: 1 / (1 + np.exp(-logits)),
    "temperature": lambda logits: weights_of(logits / 2, 2, 1),
    "a choice by other logits": lambda logits: weights_of(-logits, 2, 1),
    "shifted": lambda logits: weights_of(logits, 2, 0) + 0.01,
}


@pytest.mark.parametrize("name", OTHER_ROUTERS)
def test_other_router_is_refused(name: str) -> None:
    logits = gate(6)
    with pytest.raises(Unfit, match="something else than the softmax"):
        recognise(OTHER_ROUTERS[name](logits), logits)


def test_missing_expert_is_refused() -> None:
    logits = gate(6)
    with pytest.raises(Unfit, match="5 experts do not share 6 logits"):
        recognise(weights_of(logits, 2, 1)[:, :5], logits)
