"""The small inputs of ``../shared/cases`` that concern the front end: each gives what is right."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.support.compiled import compiled
from tests.support.ratio import decibel
from tests.support.shared import case
from vitrify.arch.errors import VitrifyError
from vitrify.arch.presets import preset
from vitrify.compiler.driver import compile_model
from vitrify.ir import evaluate
from vitrify.runtime import InferenceSession

#: Case, architecture, least signal-to-noise ratio in dB against ONNX Runtime on the same file.
RIGHT = {
    "base": ("nano", 33),
    "output_heads_4d": ("nano", 33),
    "output_quantised": ("nano", 33),
    "uint8_dequant_input": ("nano", 33),
    "uint8_cast_norm": ("nano", 33),
    "fp16_all": ("nano", 33),
    "outname_0": ("nano", 33),
    "wrong_output_first_tokens": ("reference", 30),
    "scale_perhead_const": ("nano", 33),
    "mask_where_true": ("nano", 33),
    "pad_zero": ("nano", 33),
    "splittosequence_chunk": ("nano", 33),
    "splitseq_unbind_17": ("nano", 33),
    "einsum_ellipsis": ("nano", 33),
    "relu_in_quantizer": ("nano", 30),
    "relu_float_ort_qdq_u8u8": ("nano", 30),
    "relu_float_ort_qop": ("nano", 30),
    "swiglu": ("nano", 28),
    "rmsnorm23": ("nano", 30),
    "rotary23": ("nano", 28),
    "argmax_out": ("nano", 200),  # the same labels
}
#: Case and what its sentence says.
REFUSED = {
    "nan_weight": r"Weight 'fc1\.weight' holds 1 NaN",
    "w_1e38": r"Weight 'fc2\.weight'.*1e\+12 is the most",
    "bomb_concat": r"Node 'cn\d+' \(Concat\).*512 MiB are the most allowed",
    "cycle": r"Node '.*' \(\w+\).*needs its own result",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    arch, least = RIGHT[name]
    result = compiled(case(f"{name}.onnx"), arch=arch)
    for output in result.wanted:
        assert result.found[output].dtype == result.wanted[output].dtype
        assert result.snr(output) >= least


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8), np.float32)
    with pytest.raises(VitrifyError, match=REFUSED[name]) as caught:
        compile_model(case(f"{name}.onnx"), preset("nano"), images)
    assert "\n" not in str(caught.value)


def test_qonnx_quant() -> None:
    """QONNX has no executor here: its quantiser is ONNX's of the same step."""
    path = case("qonnx_quant.onnx")
    proto = onnx.load(path)
    (quant,) = [node for node in proto.graph.node if node.op_type == "Quant"]
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in proto.graph.initializer}
    x, scale, zero, bits = quant.input
    assert (float(constants[zero]), float(constants[bits])) == (0, 8)
    numbers = np.random.default_rng(0)
    images = numbers.standard_normal((24, 3, 8, 8), np.float32)
    program = compile_model(path, preset("nano"), images)
    zeros = onnx.numpy_helper.from_array(np.zeros((), np.uint8), "zeros")
    proto.graph.initializer.append(zeros)
    place = list(proto.graph.node).index(quant)
    pair = [
        onnx.helper.make_node("QuantizeLinear", [x, scale, "zeros"], ["codes"]),
        onnx.helper.make_node("DequantizeLinear", ["codes", scale, "zeros"], list(quant.output)),
    ]
    del proto.graph.node[place]
    for node in reversed(pair):
        proto.graph.node.insert(place, node)
    model = ir.from_proto(proto)
    name = proto.graph.output[0].name
    wanted = np.concatenate(
        [evaluate(model, {"image": images[at : at + 3]}, [name])[name] for at in range(0, 24, 3)]
    )
    found = InferenceSession(program).run(None, {"image": images})[0]
    assert decibel(wanted, found) >= 30


def test_mask_of_zeros() -> None:
    """ONNX lets it broadcast, ONNX Runtime does not: the same model without it is the judge."""
    images = np.random.default_rng(0).standard_normal((24, 3, 8, 8), np.float32)
    proto = onnx.load(case("attention23_zeromask.onnx"))
    program = compile_model(case("attention23_zeromask.onnx"), preset("nano"), images)
    (node,) = [node for node in proto.graph.node if node.op_type == "Attention"]
    del node.input[3:]
    model, name = ir.from_proto(proto), proto.graph.output[0].name
    wanted = np.concatenate(
        [evaluate(model, {"image": images[at : at + 3]}, [name])[name] for at in range(0, 24, 3)]
    )
    found = InferenceSession(program).run(None, {"image": images})[0]
    assert decibel(wanted, found) >= 30


def test_softmax_over_all_axes() -> None:
    """Operator set 12, no axis: the softmax of all scores of an image, not of a row."""
    assert compiled(case("softmax_opset12_noaxis.onnx")).snr() >= 30
