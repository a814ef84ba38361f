"""From unusual spellings to the program: golden computes what ONNX Runtime does on the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny as t
from test_activations import WRITTEN, C
from test_errors import one_sentence
from tiny import tiny

from tests.support.compiled import Compiled, compiled, pictures
from tests.support.ratio import decibel
from vitrify.arch.errors import InputError, ModelError
from vitrify.arch.presets import preset
from vitrify.compiler.driver import compile_model
from vitrify.compiler.losses import LossWarning
from vitrify.frontend import canonicalise, load
from vitrify.ir import evaluate
from vitrify.program import Program
from vitrify.runtime import InferenceSession


def of(tmp_path: Path, model: ir.Model, *, scale: float = 1.0) -> Compiled:
    ir.save(model, tmp_path / "model.onnx")
    return compiled(tmp_path / "model.onnx", scale=scale)


@pytest.mark.parametrize(
    "name", ["Selu", "LeakyRelu 0.2", "Softsign", "Clip 0 20", "Clip -3 2", "Sin", "Where"]
)
def test_any_function_becomes_a_table(name: str, tmp_path: Path) -> None:
    assert of(tmp_path, tiny(activation=WRITTEN[name], opset=20)).snr() >= 30


def test_clamp_that_only_large_inputs_reach(tmp_path: Path) -> None:
    model = tiny(activation=WRITTEN["Clip 0 20"], opset=20)
    assert of(tmp_path, model, scale=100).snr() >= 25


def test_clamp_of_the_residual_stream(tmp_path: Path) -> None:
    clamp = f"yy = Add(x, projected)  lo = {C.format(-2.0)}  hi = {C.format(2.0)}\n"
    clamp += "y = Clip(yy, lo, hi)"
    residual = t.RESIDUAL.replace("y = Add(x, projected)", clamp)
    assert of(tmp_path, tiny(residual=residual, opset=20), scale=2).snr() >= 28


#: Outputs beside the logits, from the tensors of ``tiny``, and the type of each.
OUTPUTS = {
    "first tokens": ("e2 = Constant <value_ints = [2]> ()  more = Slice(z, first, e2, axis1)", 1),
    "all but the first": (
        "e9 = Constant <value_ints = [9]> ()  more = Slice(z, axis1, e9, axis1)", 1,
    ),
    "some channels": (
        "e9 = Constant <value_ints = [5]> ()  more = Slice(active, first, e9, axis2)", 1,
    ),
    "a map": (
        ("zt = Transpose <perm = [0, 2, 1]> (z)  f9 = Constant <value_ints = [3, 8, 2, 2]> ()\n"
        "more = Reshape(zt, f9)"), 1,
    ),
    "one number": (
        ("i9 = Constant <value_int = 1> ()  zg = Gather <axis = 1> (z, i9)\n"
        "more = Gather <axis = 1> (zg, i9)"), 1,
    ),
    "pixels of patches": (
        ("zt = Transpose <perm = [0, 2, 1]> (z)  f9 = Constant <value_ints = [3, 8, 2, 2]> ()\n"
        "zm = Reshape(zt, f9)  more = DepthToSpace <blocksize = 2, mode = \"CRD\"> (zm)"), 1,
    ),
    "pixels in another order, behind the channels": (
        ("o9 = Constant <value_ints = [2, 0, 1, 3]> ()  zg = Gather <axis = 1> (z, o9)\n"
        "more = Transpose <perm = [0, 2, 1]> (zg)"), 1,
    ),
    "heads": ("more = Identity(mixed)", 1),
    "flat": ("f9 = Constant <value_ints = [3, -1]> ()  more = Reshape(z, f9)", 1),
    "the same tensor again": ("more = Identity(logits)", 1),
    "int8": (
        ("s9 = Constant <value_float = 0.05> ()  z9 = Constant <value = int8 {3}> ()\n"
        "more = QuantizeLinear(z, s9, z9)"), onnx.TensorProto.INT8,
    ),
    "uint8, by channel, a map": (
        ("s9 = Constant <value = float[8] {0.05,0.1,0.05,0.1,0.05,0.1,0.05,0.1}> ()\n"
        "z9 = Constant <value = uint8[8] {128,128,128,128,100,128,128,128}> ()\n"
        "q9 = QuantizeLinear <axis = 2> (z, s9, z9)\n"
        "zt = Transpose <perm = [0, 2, 1]> (q9)  f9 = Constant <value_ints = [3, 8, 2, 2]> ()\n"
        "more = Reshape(zt, f9)"), onnx.TensorProto.UINT8,
    ),
    "float16": ("more = Cast <to = 10> (z)", onnx.TensorProto.FLOAT16),
    "double": ("more = Cast <to = 11> (z)", onnx.TensorProto.DOUBLE),
}  # fmt: skip


def with_output(text: str, kind: int) -> ir.Model:
    proto = ir.to_proto(tiny(opset=18, head=t.HEAD + "\n" + text))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("more", kind, None))
    return ir.from_proto(proto)


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_any_form_and_type(name: str, tmp_path: Path) -> None:
    result = of(tmp_path, with_output(*OUTPUTS[name]))
    assert result.found["more"].dtype == result.wanted["more"].dtype
    assert result.snr("more") >= 28
    assert result.snr("logits") >= 30
    result.program.save(tmp_path / "m.vfy")
    again = Program.load(tmp_path / "m.vfy")
    feed = pictures(with_output(*OUTPUTS[name]).graph.inputs[0], 32)[: len(result.found["more"])]
    np.testing.assert_array_equal(
        InferenceSession(again).run(["more"], {"image": feed})[0], result.found["more"]
    )


def test_pixels_of_patches_are_not_moved(tmp_path: Path) -> None:
    """The host reads them in their order, as it does a transposed map."""
    a_map, pixels = (
        of(tmp_path, with_output(*OUTPUTS[name])).program for name in ("a map", "pixels of patches")
    )
    assert isinstance(a_map, Program)
    assert isinstance(pixels, Program)
    assert pixels.instruction_count == a_map.instruction_count
    (spec,) = [spec for spec in pixels.outputs if spec.name == "more"]
    assert spec.shape == (2, 4, 4)
    assert spec.grid == (2, 2, 2, 2, 2)


def test_saturating_output(tmp_path: Path) -> None:
    text = "s9 = Constant <value_float = 0.01> ()  more = QuantizeLinear(z, s9)"
    result = of(tmp_path, with_output(text, onnx.TensorProto.UINT8))
    found, wanted = result.found["more"], result.wanted["more"]
    assert (wanted == 0).any()
    assert (wanted == 255).any()
    assert np.abs(found.astype(int) - wanted).mean() <= 3


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [("more = Transpose <perm = [1, 0, 2]> (z)", 1, "its first axis is not the batch"),
     ("more = Cast <to = 9> (z)", onnx.TensorProto.BOOL, "into BOOL"),
     ("more = Identity(image)", 1, "an input as well")],
)  # fmt: skip
def test_outputs_that_are_refused(text: str, kind: int, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        canonicalise(with_output(text, kind))
    one_sentence(caught.value)


PIXELS = {
    "cast": "fl = Cast <to = 1> (image)  im = Div(fl, scale255)  i2 = Sub(im, mean)\n"
    "ic = Div(i2, std)\n",
    "dequantised": "s9 = Constant <value_float = 0.0078125> ()\n"
    "z9 = Constant <value = uint8 {128}> ()  ic = DequantizeLinear(image, s9, z9)\n",
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixels(name: str, tmp_path: Path) -> None:
    image = f"uint8[{t.N},{t.C},{t.SIZE},{t.SIZE}]"
    model = tiny(embed=PIXELS[name] + t.EMBED.replace("image", "ic"), image=image)
    result = of(tmp_path, model)
    assert result.snr() >= 30
    assert result.program.input.preprocess == "none"
    pixels = pictures(model.graph.inputs[0], 3)
    exact = InferenceSession(tmp_path / "model.onnx", "float").run(None, {"image": pixels})[0]
    floats = InferenceSession(result.program).run(None, {"image": pixels.astype(np.float32)})[0]
    np.testing.assert_allclose(floats, exact, atol=0.1 * np.abs(exact).max())
    for spec in ("imagenet", "mean=0.5,std=0.5"):
        with pytest.raises(InputError, match=r"takes pixels 0 … 255 .uint8. and normalises"):
            compile_model(tmp_path / "model.onnx", preset("nano"), pixels, preprocess=spec)
    compile_model(tmp_path / "model.onnx", preset("nano"), pixels, preprocess=f"std={1 / 255!r}")
    with pytest.raises(InputError, match=r"reach from .* takes pixels"):
        compile_model(tmp_path / "model.onnx", preset("nano"), pixels - np.float32(128))


def test_images_of_integers(tmp_path: Path) -> None:
    cast = "fl = Cast <to = 1> (image)\n" + t.EMBED.replace("image", "fl")
    model = tiny(embed=cast, image=f"int32[{t.N},{t.C},{t.SIZE},{t.SIZE}]")
    ir.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="'image' is of the type INT32"):
        load(tmp_path / "model.onnx")


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE", "BFLOAT16"])
def test_models_of_other_float_types(kind: str, tmp_path: Path) -> None:
    number = onnx.TensorProto.DataType.Value(kind)
    proto = ir.to_proto(tiny())
    for stored in proto.graph.initializer:
        if stored.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(stored)
            stored.CopyFrom(
                onnx.helper.make_tensor(stored.name, number, array.shape, array.ravel().tolist())
            )
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = number
    onnx.save(proto, tmp_path / "model.onnx")
    calibration = pictures(tiny().graph.inputs[0], 32)
    program = compile_model(tmp_path / "model.onnx", preset("nano"), calibration)
    found = InferenceSession(program).run(None, {"image": calibration[:3]})[0]
    wanted = evaluate(tiny(), {"image": calibration[:3]}, ["logits"])["logits"]
    types = {"FLOAT16": np.float16, "DOUBLE": np.float64, "BFLOAT16": np.float32}
    assert found.dtype == types[kind]
    assert 10 * np.log10(np.mean(wanted**2) / np.mean((found - wanted) ** 2)) >= 28


SCALED = {
    "BatchNormalization for LayerNormalization": {
        "norm": "xt = Transpose <perm = [0, 2, 1]> (x)\n"
        "bn = BatchNormalization(xt, norm.weight, norm.bias, gain, variance)\n"
        "normal = Transpose <perm = [0, 2, 1]> (bn)"
    },
    "stream with another scale": {
        "residual": t.RESIDUAL.replace("y = Add(x, projected)", "y0 = Add(x, projected)\n")
        + "y = Mul(y0, gain)"
    },
}


@pytest.mark.parametrize("name", SCALED)
def test_stream_that_is_scaled_for_some(name: str, tmp_path: Path) -> None:
    assert of(tmp_path, tiny(opset=18, **SCALED[name])).snr() >= 28


@pytest.mark.parametrize(
    "last",
    ["logits = ArgMax <axis = -1, keepdims = 0> (l1)", "logits = Softmax <axis = -1> (l1)",
     "logits = LogSoftmax <axis = -1> (l1)",
     "n2 = Constant <value_ints = [2]> ()  logits, places = TopK(l1, n2)"],
)  # fmt: skip
def test_what_the_host_has_to_do(last: str) -> None:
    model = tiny(head="l1 = Gemm(pooled, head.weight, head.bias)\n" + last)
    op = next(name for name in ("ArgMax", "LogSoftmax", "Softmax", "TopK") if name in last)
    with pytest.raises(ModelError, match=rf"\({op}\).*end the model at the logits") as caught:
        canonicalise(model)
    one_sentence(caught.value)


HEAD = "l1 = Gemm(pooled, head.weight, head.bias)\n"


def test_outputs_that_are_true_or_false(tmp_path: Path) -> None:
    """The core makes the numbers, the host compares them."""
    model = tiny(
        head=HEAD + "logits = Greater(l1, half)", output=f"bool[{t.N},{t.CLASSES}]"
    )  # fmt: skip
    with pytest.raises(ModelError, match="true or false where numbers are expected"):
        canonicalise(model)
    result = of(tmp_path, model)
    found, wanted = result.found["logits"], result.wanted["logits"]
    assert found.dtype == wanted.dtype == bool
    assert (found == wanted).mean() >= 0.9


SLICED = """<ir_version: 9, opset_import: ["": 18]>
sliced (float[n,3,8,8] image) => (float[k,4,8] y)
<float[8,3,4,4] w, int64[1] first = {0}, int64[1] two = {2}, int64[3] form = {0, 8, 4}> {
    g = Conv <strides = [4, 4]> (image, w)  f = Reshape(g, form)
    f2 = Transpose <perm = [0, 2, 1]> (f)  y = Slice(f2, first, two, first)
}"""


@pytest.mark.parametrize(
    ("last", "words"),
    [("y = Slice(f2, first, two, first)", "'y' has 2 of 4 images: the model picks from its batch"),
     ("m = ReduceMean(f2, first)  y = Sub(f2, m)", "it computes something over its batch")],
)  # fmt: skip
def test_what_is_done_to_a_batch(last: str, words: str, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(SLICED.replace("y = Slice(f2, first, two, first)", last))
    weight = np.random.default_rng(1).normal(size=(8, 3, 4, 4)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(proto, tmp_path / "model.onnx")
    images = pictures(ir.from_proto(proto).graph.inputs[0], 4)
    with pytest.raises(ModelError, match=words):
        compile_model(tmp_path / "model.onnx", preset("nano"), images)


def with_steep(tmp_path: Path, scale: float, functions: str) -> Path:
    steep = f"b9 = {C.format(scale)}  e9 = Mul(up, b9)\n{functions}"
    ir.save(tiny(activation=steep, opset=20), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_what_is_lost_is_told(tmp_path: Path) -> None:
    """A function too steep for bytes."""
    told: list[str] = []
    path = with_steep(tmp_path, 60.0, "active = Sin(e9)")
    images = pictures(load(path).graph.inputs[0], 32)
    compile_model(path, preset("nano"), images, warn=told.append)
    (loss,) = [text for text in told if "'logits' has" in text]
    assert "dB of signal-to-noise ratio against the model in floats on 32 calibration" in loss
    assert loss.endswith("`vitrify accuracy MODEL --layers` says in which layer it is lost")
    with pytest.warns(LossWarning, match="'logits' has"):
        compile_model(path, preset("nano"), images)


def test_a_model_that_overflows_itself(tmp_path: Path) -> None:
    path = with_steep(tmp_path, 500.0, "e8 = Exp(e9)  active = Log(e8)")
    images = pictures(load(path).graph.inputs[0], 32)
    with pytest.raises(ModelError, match=r"NaN or infinite on calibration images"):
        compile_model(path, preset("nano"), images)


def test_floats_of_eight_bits_are_codes(tmp_path: Path) -> None:
    cast = "e9 = Cast <to = 17> (up)  active = Cast <to = 1> (e9)"
    assert of(tmp_path, tiny(activation=cast, opset=19)).snr() >= 25


def test_a_function_far_from_zero(tmp_path: Path) -> None:
    """Its values lie between 0.26 and 0.32."""
    far = f"b9 = {C.format(10.0)}  a9 = Abs(up)  e9 = Add(a9, b9)  e8 = Sqrt(e9)"
    model = tiny(activation=far + "  active = Reciprocal(e8)", opset=20)
    result = of(tmp_path, model)
    found, wanted = (x["logits"] - result.wanted["logits"].mean(axis=0) for x in
                     (result.found, result.wanted))
    assert decibel(wanted, found) >= 10
    assert result.snr() >= 30
