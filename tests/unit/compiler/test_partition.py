"""Models that the core runs in part: cut, compiled, saved, run, against ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.parts import IMAGES, check, compiled, places, save
from tests.support.tails import BLOCK, CONTEXT, HIDDEN, MODEL, TAILS, with_before, with_tail
from vitrify.arch.errors import ModelError, UnsupportedOpError
from vitrify.arch.presets import preset
from vitrify.compiler import application as whole
from vitrify.compiler import compile_application, compile_model, partition
from vitrify.compiler.cut import Source, source_of
from vitrify.compiler.losses import LossWarning
from vitrify.compiler.validate import VerificationError
from vitrify.frontend import load
from vitrify.ir import Evaluator
from vitrify.program import Application, HostPart, Program
from vitrify.quant.doubts import CalibrationWarning
from vitrify.runtime import InferenceSession
from vitrify.runtime.host import HostRunner


@pytest.mark.parametrize("name", TAILS)
def test_a_tail_runs_on_the_host(name: str, tmp_path: Path) -> None:
    application, path = compiled(with_tail(*TAILS[name]), tmp_path)
    assert places(application) == "ch"
    assert application.core_share == 1
    check(application, path)


def test_numpy_alone_runs_a_tail(tmp_path: Path) -> None:
    application, _ = compiled(with_tail(*TAILS["softmax, top-k"]), tmp_path)
    (part,) = (part for part in application.parts if isinstance(part, HostPart))
    given = {part.reads[0]: np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32)}
    mine, theirs = (HostRunner(part, which).run(given) for which in ("numpy", "onnxruntime"))
    for name, exact in theirs.items():
        np.testing.assert_allclose(mine[name], exact, rtol=1e-6)


def test_weights_in_another_file_become_part_of_the_program(tmp_path: Path) -> None:
    """Without them, ONNX Runtime could not even compare a model with what is made of it."""
    big = np.random.default_rng(2).normal(size=(400, 1, 5)).astype(np.float32)
    model = with_tail(
        [("LpNormalization", ["logits"], ["n"], {}), ("Mul", ["n", "big"], ["y"], {})],
        [("y", TensorProto.FLOAT)], [("big", big)], batch=1,
    )
    onnx.save(model, tmp_path / "whole.onnx")
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        application = compile_application(path, preset("nano"), IMAGES)
    assert isinstance(application, Application)
    assert isinstance(application.parts[-1], HostPart)
    assert any(np.array_equal(w, big) for w in application.parts[-1].graph.constants.values())
    names = [value.name or "" for value in load(path).graph.outputs]
    found = Evaluator(load(path), names).run({"image": IMAGES[:1]})
    judge = ort.InferenceSession(tmp_path / "whole.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found["y"], judge.run(None, {"image": IMAGES[:1]})[0], rtol=1e-5)


def test_a_model_of_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    application, path = compiled(with_tail(*TAILS["argmax"], batch=2), tmp_path)
    judge = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = np.concatenate([judge.run(None, {"image": IMAGES[i : i + 2]})[0] for i in (0, 2)])
    (found,) = InferenceSession(application).run(None, {"image": IMAGES[:3]})
    assert np.array_equal(found, wanted[:3])


def test_a_stem_runs_on_the_host(tmp_path: Path) -> None:
    application, path = compiled(with_before(["CumSum", "Sin"]), tmp_path)
    assert places(application) == "hc"
    check(application, path)


def test_an_operator_in_the_middle_is_between_two_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_before(["CumSum"], BLOCK)
    application, path = compiled(model, tmp_path)
    assert places(application) == "ch"  # so small a rest is not worth a transfer
    check(application, path)
    monkeypatch.setattr(partition, "HOST_MACS", 1.0)
    application, path = compiled(model, tmp_path)
    assert places(application) == "chc"
    assert application.core_share == 1
    check(application, path)


def test_what_reads_two_tensors_waits_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "HOST_MACS", 1.0)
    monkeypatch.setattr(partition, "MOST_PADDING", 1)
    application, path = compiled(with_before(["CumSum"], HIDDEN), tmp_path)
    assert places(application) == "chc"
    assert 0.85 < application.core_share < 1
    check(application, path)


@pytest.mark.parametrize("before", [CONTEXT, HIDDEN], ids=["one width", "several"])
def test_tensors_enter_together(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "HOST_MACS", 1.0)
    application, path = compiled(with_before(["CumSum"], before), tmp_path)
    assert places(application) == "chc"
    assert len(application.parts[2].reads) == 2
    assert application.core_share == 1
    # the stream crosses in 8 bits, with the range of a channel in both tensors
    check(application, path, enough=25)


def source_with(
    tmp_path: Path, nodes: list[onnx.NodeProto], **constants: np.ndarray
) -> Source:
    """What nodes between ``image [N, 4, 8, 8]`` and ``y`` are to the cutter."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", 1, ["N", 4, 8, 8])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    save(graph, tmp_path / "model.onnx")
    return source_of(load(tmp_path / "model.onnx"))


@pytest.mark.parametrize(("op_type", "axis"), [("LayerNormalization", 3), ("Conv", 1)])
def test_readers_say_where_the_channels_are(op_type: str, axis: int, tmp_path: Path) -> None:
    shape = (8,) if op_type == "LayerNormalization" else (4, 4, 1, 1)
    nodes = [helper.make_node("Relu", ["image"], ["r"], "r"),
             helper.make_node(op_type, ["r", "w"], ["y"], "n")]  # fmt: skip
    source = source_with(tmp_path, nodes, w=np.ones(shape, np.float32))
    assert source.axis("r") == axis
    assert source.channels("r") == (8 if axis == 3 else 4)


ROWS = helper.make_node("Reshape", ["image", "form"], ["rows"], "rows")
FORM = np.array([-1, 32, 8])
WEIGHT, BYTES = np.ones((8, 5), np.float32), np.ones((8, 5), np.int8)


@pytest.mark.parametrize(("nodes", "constants", "wanted"), [
    ([ROWS, helper.make_node("MatMul", ["rows", "w"], ["y"])], {"w": WEIGHT}, 32 * 8 * 5),
    ([ROWS, helper.make_node("DynamicQuantizeMatMul", ["rows", "w", "s"], ["y"],
                             domain="com.microsoft")],
     {"w": BYTES, "s": np.float32([1])}, 32 * 8 * 5),
    ([helper.make_node("Conv", ["image", "w"], ["y"], strides=[2, 2])],
     {"w": np.ones((6, 4, 2, 2), np.float32)}, 6 * 4 * 4 * 4 * 2 * 2),
    ([helper.make_node("ConvTranspose", ["image", "w"], ["y"], strides=[2, 2])],
     {"w": np.ones((4, 3, 2, 2), np.float32)}, 4 * 8 * 8 * 3 * 2 * 2),
    ([helper.make_node("Einsum", ["image", "image"], ["y"], equation="nchw,ncxw -> nhx")], {},
     8 * 8 * 4 * 8),
    ([helper.make_node("Einsum", ["image", "w"], ["y"], equation="...w,wo")], {"w": WEIGHT},
     4 * 8 * 8 * 5),
    ([ROWS, helper.make_node("MultiHeadAttention", ["rows", "rows", "rows"], ["y"], num_heads=2,
                             domain="com.microsoft")], {}, 2 * 32 * 32 * 8),
    ([ROWS, helper.make_node("Attention", ["rows", "w", "b"], ["y"], num_heads=2,
                             domain="com.microsoft")],
     {"w": np.ones((8, 24), np.float32), "b": np.ones(24, np.float32)},
     32 * 8 * 24 + 2 * 32 * 32 * 8),
], ids=lambda item: item[-1].op_type if isinstance(item, list) else "")  # fmt: skip
def test_multiplications_of_an_image(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], wanted: int, tmp_path: Path
) -> None:
    given = {**constants, "form": FORM} if ROWS in nodes else constants
    source = source_with(tmp_path, nodes, **given)
    assert sum(map(source.macs, source.model.graph)) == wanted


def test_what_depends_on_no_image_is_a_constant(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["form"], ["zero"], "zeros"),
             helper.make_node("Add", ["image", "zero"], ["y"], "add")]  # fmt: skip
    source = source_with(tmp_path, nodes, form=np.array([1, 4, 8, 8]))
    assert [node.op_type for node in source.model.graph] == ["Add"]


def test_what_the_core_runs_as_a_whole_stays_a_program(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(with_before(["Sin"], BLOCK), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert isinstance(compile_application(path, preset("nano"), IMAGES), Program)


def test_strict_refuses_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(with_tail(*TAILS["argmax"]), path)
    with pytest.raises(UnsupportedOpError, match=r"\(ArgMax\) is not supported") as caught:
        compile_model(path, preset("nano"), IMAGES)
    assert caught.value.node == "y"


def odd_only(tmp_path: Path, nodes: list[onnx.NodeProto]) -> Path:
    shape = ["N", 3, 16, 16]
    graph = helper.make_graph(
        nodes, "odd", [helper.make_tensor_value_info("image", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    path = tmp_path / "odd.onnx"
    save(graph, path)
    return path


def test_a_model_without_anything_for_the_core_is_refused(tmp_path: Path) -> None:
    path = odd_only(tmp_path, [helper.make_node("LRN", ["image"], ["y"], "odd", size=3)])
    with pytest.raises(UnsupportedOpError, match=r"Node 'odd' \(LRN\) is not supported: no op"):
        compile_application(path, preset("nano"), IMAGES)


def test_an_operator_that_nobody_has_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Odd", ["image"], ["y"], "odd", domain="ours")
    with pytest.raises(ModelError, match=r"ours\.Odd"):
        compile_application(odd_only(tmp_path, [node]), preset("nano"), IMAGES)


def test_the_parts_are_compared_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = whole.host_model

    def wrong(*given):
        model = right(*given)
        for node in model.graph:
            if node.op_type == "LogSoftmax":
                node.op_type = "Softmax"
        return model

    monkeypatch.setattr(whole, "host_model", wrong)
    with pytest.raises(VerificationError, match="output 'y' of the parts deviates"):
        compiled(with_tail(*TAILS["two outputs"]), tmp_path)


def test_what_the_parts_lose_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the way to the layer, which only a model has that the core runs as a whole."""
    monkeypatch.setattr("vitrify.compiler.losses.LEAST", 200)
    told: list[str] = []
    compiled(with_tail(*TAILS["two outputs"]), tmp_path, warn=told.append)
    losses = [text for text in told if "against the model in floats" in text]
    assert losses
    assert all(text.endswith("answers may differ") for text in losses)


@pytest.mark.parametrize("model", [MODEL, None], ids=["whole", "parts"])
def test_warnings_are_of_the_line_that_compiles(
    model: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitrify.compiler.losses.LEAST", 200)
    onnx.save(with_tail(*TAILS["two outputs"]), tmp_path / "model.onnx")
    with pytest.warns((LossWarning, CalibrationWarning)) as told:
        compile_application(model or tmp_path / "model.onnx", preset("nano"), IMAGES)
    assert {warning.category for warning in told} == {LossWarning, CalibrationWarning}
    assert {warning.filename for warning in told} == {__file__}


@pytest.mark.parametrize("nodes", [
    [("Reshape", ["logits", "scores"], ["s"], {}), ("Reshape", ["logits", "column"], ["c"], {}),
     ("Concat", ["c", "c", "c", "c"], ["boxes"], {"axis": 2}),
     ("NonMaxSuppression", ["boxes", "s", "most"], ["y"], {})],
    [("CumSum", ["logits", "first"], ["y"], {})],
], ids=lambda nodes: nodes[-1][0])  # fmt: skip
def test_results_that_depend_on_the_batch_are_refused(nodes: list, tmp_path: Path) -> None:
    """Boxes have the number of their image, which in a run of the host would begin again at 0."""
    kind = TensorProto.INT64 if nodes[-1][0] == "NonMaxSuppression" else TensorProto.FLOAT
    model = with_tail(nodes, [("y", kind)], [
        ("scores", np.array([-1, 1, 5])), ("column", np.array([-1, 5, 1])),
        ("most", np.array([3])), ("first", np.array([0])),
    ])  # fmt: skip
    with pytest.raises(ModelError, match=r"output 'y' of several images .* for one image"):
        compiled(model, tmp_path)


def test_a_model_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(with_before(["RandomUniformLike"], BLOCK), path)
    with pytest.raises(UnsupportedOpError, match=r"\(RandomUniformLike\) is not supported"):
        compile_application(path, preset("nano"), IMAGES)


@pytest.mark.parametrize(("axes", "tail"), [
    ([0, 1, 2, 3], [("Mul", ["s", "r"], ["y"], {})]),
    ([0, 2, 3],
     [("Reshape", ["s", "flat"], ["f"], {}), ("Concat", ["f", "r"], ["y"], {"axis": 0})]),
], ids=["scalar", "vector"])  # fmt: skip
def test_what_has_no_batch_goes_to_no_other_part(axes: list, tail: list, tmp_path: Path) -> None:
    model = with_tail([("Sin", ["logits"], ["s"], {}), *tail], [("y", TensorProto.FLOAT)],
                      [("flat", np.array([-1])), ("axis", np.array(1))], batch=1)  # fmt: skip
    for node in (helper.make_node("ReduceMax", ["sums"], ["r"], "r", axes=axes, keepdims=0),
                 helper.make_node("CumSum", ["image", "axis"], ["sums"], "sums")):
        model.graph.node.insert(0, node)
    with pytest.raises(UnsupportedOpError, match="is not supported"):
        compiled(model, tmp_path)


def test_an_entrance_of_too_many_channels_stays_on_the_host(tmp_path: Path) -> None:
    """What is read is one vector of 8,192 numbers; an embedding of it would be 256 MiB."""
    weight = np.random.default_rng(3).normal(size=(8192, 4)).astype(np.float32)
    nodes = [helper.make_node("CumSum", ["image", "axis"], ["c"], "sums"),
             helper.make_node("Reshape", ["c", "form"], ["f"], "flat"),
             helper.make_node("MatMul", ["f", "w"], ["y"], "product")]  # fmt: skip
    graph = helper.make_graph(
        nodes, "wide", [helper.make_tensor_value_info("image", 1, ["N", 2, 64, 64])],
        [helper.make_tensor_value_info("y", 1, ["N", 4])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(1), "axis"),
         numpy_helper.from_array(np.array([-1, 8192]), "form")],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    save(graph, path)
    with pytest.raises(UnsupportedOpError, match=r"\(CumSum\) is not supported"):
        compile_application(path, preset("nano"), IMAGES[:, :2].repeat(4, 2).repeat(4, 3))


def test_operator_known_by_its_body_is_cut_inside(tmp_path: Path) -> None:
    """A mask given at run time is the host's; products that it does not touch are the core's."""
    forms = {"q": [1, 2, 32, 16], "k": [1, 2, 32, 16], "v": [1, 2, 32, 16]}
    graph = helper.make_graph(
        [helper.make_node("Attention", ["q", "k", "v", "seen"], ["y"], "attention")], "g",
        [*(helper.make_tensor_value_info(name, 1, form) for name, form in forms.items()),
         helper.make_tensor_value_info("seen", TensorProto.BOOL, [1, 1, 32, 32])],
        [helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "model.onnx")
    source, pieces = partition.cut(load(tmp_path / "model.onnx", any_inputs=True))
    assert not any(node.op_type == "Attention" for node in source.model.graph)
    assert sum(piece.macs for piece in pieces if piece.on_core) > 0


def test_sizes_are_constants(tmp_path: Path) -> None:
    """Of a model that computes them, and has one image at a time then; no part hands them on."""
    nodes = [
        helper.make_node("Shape", ["image"], ["sizes"], "sizes"),
        helper.make_node("Gather", ["sizes", "first"], ["images"], "images"),
        helper.make_node("Concat", ["images", "rest"], ["form"], "form", axis=0),
        helper.make_node("Reshape", ["image", "form"], ["y"], "y"),
    ]
    source = source_with(tmp_path, nodes, first=np.array([0]), rest=np.array([64, 4]))
    assert source.batch == 1
    assert [node.op_type for node in source.model.graph] == ["Reshape"]
    assert source.arrays["y"][1] == (1, 64, 4)
