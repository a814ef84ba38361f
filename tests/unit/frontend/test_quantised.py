"""Quantised models: what they round is forgotten, what they saturate is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny as t
from agree import assert_agrees, kinds
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from test_errors import one_sentence
from tiny import picture, tiny

from tests.support.compiled import compiled, pictures
from vitrify.arch.errors import ModelError
from vitrify.frontend import canonicalise, load
from vitrify.ir import attributes_of, evaluate
from vitrify.ir.quantisers import quantisers_of

ROUNDED = 5e-2
Q = "z8 = Constant <value = {kind} {{{zero}}}> ()  s8 = Constant <value_float = {scale}> ()\n"
PAIR = "c8 = QuantizeLinear({x}, s8, z8)  {y} = DequantizeLinear(c8, s8, z8)"


def pair(kind: str, zero: int, scale: float, x: str = "up", y: str = "active") -> str:
    return Q.format(kind=kind, zero=zero, scale=scale) + PAIR.format(x=x, y=y)


def images(model: ir.Model) -> np.ndarray:
    return pictures(model.graph.inputs[0], 16)


def activations(model: ir.Model) -> list[str]:
    return [attributes_of(node)["kind"] for node in model.graph if node.op_type == "Activation"]


class Reader(CalibrationDataReader):
    def __init__(self, model: ir.Model) -> None:
        self.left = [{"image": images(model)[at : at + t.N]} for at in (0, 3, 6, 9)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def static(tmp_path: Path, model: ir.Model, **options: Any) -> Path:
    source, target = tmp_path / "float.onnx", tmp_path / "quantised.onnx"
    onnx.save(ir.to_proto(model), source)
    quantize_static(source, target, Reader(model), **options)
    return target


RELU = tiny(activation="active = Relu(up)")


@pytest.mark.parametrize("given", [True, False], ids=["with images", "without"])
def test_relu_that_is_a_zero_point(given: bool) -> None:
    model = tiny(activation=pair("uint8", 0, 0.05))
    canonical = canonicalise(model, images=images(model) if given else None)
    assert activations(canonical) == ["relu"]
    feeds = picture(model)
    wanted, found = (evaluate(m, feeds, ["logits"])["logits"] for m in (model, canonical))
    np.testing.assert_allclose(found, wanted, atol=ROUNDED * np.abs(wanted).max())


def test_bounds_that_images_reach() -> None:
    """127 steps of 0.005 on both sides."""
    model = tiny(activation=pair("int8", 0, 0.005))
    canonical = canonicalise(model, images=images(model))
    (kind,) = activations(canonical)
    assert "Max" in kind
    assert "Min" in kind
    feeds = picture(model)
    wanted, found = (evaluate(m, feeds, ["logits"])["logits"] for m in (model, canonical))
    np.testing.assert_allclose(found, wanted, atol=ROUNDED * np.abs(wanted).max())


def test_bounds_of_each_channel() -> None:
    """The codes of all channels have the same bounds, their values have not."""
    steps, zeros = np.linspace(0.002, 0.01, 2 * t.D), np.arange(2 * t.D) - 5
    lists = [", ".join(map(str, values)) for values in (steps.round(5), zeros)]
    model = tiny(activation=(
        f"s8 = Constant <value = float[{2 * t.D}] {{{lists[0]}}}> ()\n"
        f"z8 = Constant <value = int8[{2 * t.D}] {{{lists[1]}}}> ()\n"
        "c8 = QuantizeLinear <axis = 2> (up, s8, z8)\n"
        "active = DequantizeLinear <axis = 2> (c8, s8, z8)"
    ))  # fmt: skip
    canonical = canonicalise(model, images=images(model))
    (kind,) = activations(canonical)
    assert "Max" in kind
    feeds = picture(model)
    wanted, found = (evaluate(m, feeds, ["logits"])["logits"] for m in (model, canonical))
    np.testing.assert_allclose(found, wanted, atol=ROUNDED * np.abs(wanted).max())


def test_bounds_that_images_do_not_reach() -> None:
    model = tiny(activation=pair("int16", 0, 0.001), opset=21)
    assert activations(canonicalise(model, images=images(model))) == []


def test_activation_before_the_quantiser() -> None:
    """A ReLU, quantised without a sign, is still one ReLU; a softmax is none."""
    relu = "ra = Relu(up)\n" + pair("uint8", 0, 0.05, "ra")
    soft = t.SOFTMAX.replace("weights = ", "w9 = ").replace(
        "mixed = ", pair("uint8", 0, 1 / 256, "w9", "weights") + "\nmixed = "
    )
    model = tiny(activation=relu)
    for given in (images(model), None):
        assert activations(canonicalise(model, images=given)) == ["relu"]
        assert activations(canonicalise(tiny(softmax=soft), images=given)) == ["gelu"]


@pytest.mark.parametrize("way", ["same codes", "moved codes", "other scale", "codes of codes"])
def test_codes_that_something_uses(way: str) -> None:
    """The dequantiser need not follow at once, nor have the parameters of the quantiser."""
    back = {
        "same codes": "active = DequantizeLinear(c8, s8, z8)",
        "moved codes": "m8 = Transpose <perm = [1, 0, 2]> (c8)  i8 = Identity(m8)\n"
        "d8 = DequantizeLinear(i8, s8, z8)  active = Transpose <perm = [1, 0, 2]> (d8)",
        "other scale": "s9 = Constant <value_float = 0.1> ()\n"
        "z9 = Constant <value = uint8 {20}> ()\n"
        "active = DequantizeLinear(c8, s9, z9)",
        "codes of codes": "f8 = Cast <to = 1> (c8)  active = Mul(f8, s8)",
    }[way]
    start = Q.format(kind="uint8", zero=0, scale=0.05) + "c8 = QuantizeLinear(up, s8, z8)\n"
    model = tiny(activation=start + back)
    canonical = canonicalise(model, images=images(model))
    feeds = picture(model)
    wanted, found = (evaluate(m, feeds, ["logits"])["logits"] for m in (model, canonical))
    np.testing.assert_allclose(found, wanted, atol=ROUNDED * np.abs(wanted).max())
    assert "Relu" in (kind := activations(canonical)[0]) or "Max" in kind or kind == "relu"


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("kind", [QuantType.QInt8, QuantType.QUInt8])
def test_static_quantisation(
    tmp_path: Path, per_channel: bool, form: QuantFormat, kind: QuantType
) -> None:
    path = static(
        tmp_path, RELU, quant_format=form, per_channel=per_channel,
        activation_type=QuantType.QUInt8, weight_type=kind,
    )  # fmt: skip
    quantised = load(path)
    assert not any(node.op_type == "Relu" for node in quantised.graph)
    canonical = canonicalise(quantised, images=images(quantised))
    assert activations(canonical) == ["relu"]
    assert kinds(canonical) == kinds(canonicalise(RELU))
    assert compiled(path).snr() >= 28


def test_tensors_of_a_fixed_batch_are_found(tmp_path: Path) -> None:
    quantised = load(static(tmp_path, RELU))
    assert t.N > 1
    canonical = canonicalise(quantised, images=images(quantised))
    made = {value.name for node in canonical.graph for value in node.outputs}
    found = {q.tensor for q in quantisers_of(canonical) if q.value in made}
    assert {"q", "k", "v", "active", "y"} <= found


def test_gelu_and_static_quantisation(tmp_path: Path) -> None:
    path = static(tmp_path, tiny(), quant_format=QuantFormat.QOperator)
    canonical = canonicalise(load(path), images=images(tiny()))
    assert kinds(canonical) == kinds(canonicalise(tiny()))
    assert compiled(path).snr() >= 25


@pytest.mark.parametrize("per_channel", [True, False])
def test_dynamic_quantisation(tmp_path: Path, per_channel: bool) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "quantised.onnx"
    onnx.save(ir.to_proto(tiny()), source)
    quantize_dynamic(source, target, per_channel=per_channel)
    model = load(target)
    assert any(node.op_type == "MatMulInteger" for node in model.graph)
    assert kinds(assert_agrees(model, picture(model), tolerance=ROUNDED)) == kinds(
        canonicalise(tiny())
    )


def _qonnx(**attributes: Any) -> ir.Model:
    """``tiny`` with QONNX quantisers on a weight and in place of the activation."""
    proto = ir.to_proto(RELU)
    (relu,) = [node for node in proto.graph.node if node.op_type == "Relu"]
    numbers = {"qs": 0.05, "qz": 0.0, "qb": 8.0, "ws": 0.1, "wb": 4.0}
    for name, number in numbers.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(number, np.float32), name)
        )
    relu.domain, relu.op_type = "qonnx.custom_op.general", "Quant"
    relu.input.extend(["qs", "qz", "qb"])
    relu.attribute.append(onnx.helper.make_attribute("signed", 0))
    (up,) = [node for node in proto.graph.node if "fc1.weight" in node.input]
    up.input[1] = "fc1.q"
    weight = onnx.helper.make_node(
        "Quant", ["fc1.weight", "ws", "qz", "wb"], ["fc1.q"], "wq",
        domain="qonnx.custom_op.general", signed=1, **attributes,
    )  # fmt: skip
    proto.graph.node.insert(0, weight)
    proto.opset_import.append(onnx.helper.make_opsetid("qonnx.custom_op.general", 1))
    return ir.from_proto(proto)


@pytest.mark.parametrize(
    ("attributes", "low", "rounding"),
    [({}, -8, np.rint), ({"narrow": 1}, -7, np.rint), ({"rounding_mode": "FLOOR"}, -8, np.floor),
     ({"rounding_mode": "CEIL"}, -8, np.ceil)],
)  # fmt: skip
def test_qonnx(attributes: dict[str, Any], low: int, rounding: Any) -> None:
    model = _qonnx(**attributes)
    canonical = canonicalise(model, images=images(RELU))
    assert activations(canonical) == ["relu"]
    weight = RELU.graph.initializers["fc1.weight"].const_value
    assert weight is not None
    wanted = np.clip(rounding(weight.numpy().astype(np.float64) / np.float32(0.1)), low, 7) * 0.1
    (found,) = [v for v in canonical.graph.initializers.values() if v.shape == ir.Shape([16, 8])]
    assert found.const_value is not None
    np.testing.assert_allclose(found.const_value.numpy(), wanted.T, atol=1e-6)


def test_rounding_that_is_not_known() -> None:
    with pytest.raises(ModelError, match=r"'wq' \(qonnx.*rounds in a way") as caught:
        canonicalise(_qonnx(rounding_mode="STOCHASTIC"))
    one_sentence(caught.value)


def test_scale_that_is_computed() -> None:
    text = "s8 = ReduceMax <keepdims = 0> (up)  z8 = Constant <value = uint8 {0}> ()\n"
    model = tiny(activation=text + PAIR.format(x="up", y="active"))
    with pytest.raises(ModelError, match=r"\(DequantizeLinear\).*static quantisation") as caught:
        canonicalise(model)
    one_sentence(caught.value)
