"""The specification of canonical graphs catches what breaks it, and names the node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from vitrify.ir import Builder, Evaluator, VerifyError, evaluate, tensor, verify


def small() -> ir.Model:
    builder = Builder([tensor("image", ["N", 1, 4, 4])])
    x = builder.emit(
        "PatchEmbed", builder.graph.inputs[0], np.ones((3, 4)), np.zeros(3), name="embed",
        patch=[2, 2],
    )  # fmt: skip
    y = builder.emit("Activation", x, name="act", kind="relu")
    z = builder.emit("Add", x, y, name="sum")
    return builder.model([builder.emit("MeanPool", z, name="pool", start=0, end=4)])


def node(model: ir.Model, name: str) -> ir.Node:
    return next(found for found in model.graph if found.name == name)


def set_attribute(name: str, attribute: ir.Attr) -> Callable[[ir.Model], None]:
    def change(model: ir.Model) -> None:
        node(model, name).attributes[attribute.name] = attribute

    return change


def foreign(model: ir.Model) -> None:
    old = node(model, "act")
    new = ir.node("Relu", list(old.inputs), name="act2")
    new.outputs[0].name = "act2"
    ir.convenience.replace_nodes_and_values(
        model.graph, old, [old], [new], list(old.outputs), list(new.outputs)
    )


def wrong_shape(model: ir.Model) -> None:
    node(model, "sum").outputs[0].shape = ir.Shape(["N", 9, 3])


def same_name(model: ir.Model) -> None:
    node(model, "sum").outputs[0].name = "act"


def no_function(model: ir.Model) -> None:
    del model.functions["vitrify", "Add", ""]


def computed_weight(model: ir.Model) -> None:
    embed = node(model, "embed")
    assert embed.inputs[1] is not None
    embed.inputs[1].const_value = None


def early(model: ir.Model) -> None:
    first, last = node(model, "act"), node(model, "sum")
    model.graph.remove(last)
    model.graph.insert_before(first, last)


BREAKS: dict[str, tuple[Callable[[ir.Model], None], str]] = {
    "foreign operator": (foreign, r"'act' \(Relu\)|'act2' \(Relu\)"),
    "wrong shape": (wrong_shape, "'sum' .*has shape"),
    "name taken": (same_name, "'sum' .*'act' is empty or taken"),
    "no function": (no_function, "'sum' .*no function body"),
    "weight that is no initializer": (computed_weight, "'embed' .*'weight' is not an initializer"),
    "used before produced": (early, "'sum' .*'y' is produced by nothing"),
    "attribute out of range": (set_attribute("pool", ir.AttrInt64("end", 5)), "'pool' .*0:5"),
    "attribute too many": (set_attribute("sum", ir.AttrInt64("axis", 5)), r"'sum' .*\['axis'\]"),
    "attribute type": (set_attribute("pool", ir.AttrFloat32("end", 4.0)), "'pool' .*not of type"),
    "overload": (set_attribute("act", ir.AttrString("kind", "gelu")), "'act' .*overload"),
}


def test_good_graph_passes() -> None:
    verify(small())


@pytest.mark.parametrize("name", BREAKS)
def test_broken_graph_is_refused(name: str) -> None:
    change, words = BREAKS[name]
    model = small()
    change(model)
    with pytest.raises(VerifyError, match=words):
        verify(model)


def task_model(kind: ir.DataType) -> ir.Model:
    builder = Builder([tensor("x", ["N", 3]), tensor("task", ["N"], kind)])
    x, task = builder.graph.inputs
    weight, bias = np.ones((2, 4, 3)), np.zeros((2, 4))
    return builder.model([builder.emit("TaskLinear", x, weight, bias, task, name="head")])


def test_task_is_an_integer_input() -> None:
    verify(task_model(ir.DataType.INT64))
    with pytest.raises(VerifyError, match=r"'head' .*'task' is not a graph input of int64"):
        verify(task_model(ir.DataType.FLOAT))


def test_all_tensors_or_some() -> None:
    model = small()
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    everything = evaluate(model, {"image": image})
    assert list(everything) == ["embed", "act", "sum", "pool"]
    np.testing.assert_array_equal(everything["sum"], 2 * everything["embed"])
    some = Evaluator(model, ["act", "embed"], threads=1).run({"image": image})
    assert list(some) == ["act", "embed"]
    # asking for inner tensors leaves the model as it was
    assert [value.name for value in model.graph.outputs] == ["pool"]
    with pytest.raises(ValueError, match="no tensor named 'nowhere'"):
        evaluate(model, {"image": image}, ["nowhere"])
