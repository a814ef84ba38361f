"""Everything that can be wrong with a model gives one sentence that names it and the way out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny as t
from tiny import tiny

from vitrify.arch.errors import ModelError, UnsupportedOpError, VitrifyError
from vitrify.frontend import (
    ExternalDataError,
    ModelFileError,
    ModelInputError,
    OpsetError,
    canonicalise,
    load,
)

FIXTURE = Path(__file__).parents[2] / "data" / "timm_ts17.onnx"


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert isinstance(error, VitrifyError)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 400
    return text


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"absent\.onnx' does not exist; check") as caught:
        load(tmp_path / "absent.onnx")
    one_sentence(caught.value)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is no file"):
        load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is no model\n", bytes(range(256)) * 40, b"\x00" * 4096, b"PK\x03\x04zip"],
    ids=["empty", "text", "noise", "zeros", "zip"],
)
def test_no_onnx(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match="export or download it again") as caught:
        load(file)
    one_sentence(caught.value)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.7, 0.99, 0.9999])
def test_truncated_file(tmp_path: Path, part: float) -> None:
    whole = FIXTURE.read_bytes()
    file = tmp_path / "model.onnx"
    file.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ModelFileError, match="damaged; export") as caught:
        load(file)
    one_sentence(caught.value)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Protobuf gives them as bytes; a name of a node, a tensor, an attribute."""
    whole = FIXTURE.read_bytes()
    file = tmp_path / "model.onnx"
    for name in (b"/blocks/blocks.0/attn/qkv/MatMul", b"axis", b"LayerNormalization"):
        assert name in whole
        file.write_bytes(whole.replace(name, b"\xff" + name[1:]))
        with pytest.raises(ModelError) as caught:
            canonicalise(load(file))
        one_sentence(caught.value)


def test_flipped_bytes_never_give_a_traceback(tmp_path: Path) -> None:
    whole = np.frombuffer(FIXTURE.read_bytes(), np.uint8)
    file = tmp_path / "model.onnx"
    rng = np.random.default_rng(3)
    for _ in range(40):
        broken = whole.copy()
        broken[rng.integers(0, len(whole), 8)] ^= rng.integers(1, 256, 8).astype(np.uint8)
        file.write_bytes(broken.tobytes())
        try:
            canonicalise(load(file))
        except VitrifyError as error:
            one_sentence(error)


def _external(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    ir.save(ir.load(FIXTURE), file, external_data="weights.bin", size_threshold_bytes=0)
    return file


def test_external_data_is_read(tmp_path: Path) -> None:
    canonicalise(load(_external(tmp_path)))


def test_missing_external_data(tmp_path: Path) -> None:
    file = _external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ExternalDataError, match=r"weights\.bin'.*beside the model") as caught:
        load(file)
    one_sentence(caught.value)


def test_short_external_data(tmp_path: Path) -> None:
    file = _external(tmp_path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ExternalDataError, match="ends before weight") as caught:
        load(file)
    one_sentence(caught.value)


def _saved(tmp_path: Path, model: ir.Model) -> Path:
    ir.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_text_input(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 17]>\n'
        "bert (int64[N, 12] ids) => (float[N, 12] y) { y = Cast <to = 1> (ids) }"
    )
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ModelInputError, match=r"no image input \(only 'ids'") as caught:
        load(tmp_path / "model.onnx")
    one_sentence(caught.value)


def test_two_inputs(tmp_path: Path) -> None:
    model = tiny()
    model.graph.inputs.append(
        ir.Value(name="mask", shape=ir.Shape([1, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    )
    with pytest.raises(ModelInputError, match=r"2 inputs.*'mask'") as caught:
        load(_saved(tmp_path, model))
    one_sentence(caught.value)


def test_dynamic_image_size(tmp_path: Path) -> None:
    model = tiny()
    model.graph.inputs[0].shape = ir.Shape(["batch", 3, "height", "width"])
    with pytest.raises(ModelInputError, match="'image' has the dynamic size height, width") as e:
        load(_saved(tmp_path, model))
    one_sentence(e.value)


def test_old_opset(tmp_path: Path) -> None:
    model = tiny()
    model.graph.opset_imports[""] = 9
    with pytest.raises(OpsetError, match="opset 9, but 11") as caught:
        load(_saved(tmp_path, model))
    one_sentence(caught.value)


NO_TRANSFORMER = dict.fromkeys(
    ("norm", "project", "scores", "softmax", "residual", "mlp", "activation", "out"), ""
)
UNSUPPORTED: dict[str, tuple[dict[str, str], str]] = {
    "final softmax": (
        {"head": "l1 = Gemm(pooled, head.weight, head.bias)  logits = Softmax <axis = -1> (l1)"},
        r"\(Softmax\).*end the model at the logits",
    ),
    "unknown operator": (
        {"pool": "zz = Det(z)  pooled = Gather <axis = 1> (z, zero_i)", "head": t.HEAD},
        "",
    ),
    "unknown operator used": (
        {"activation": "active = CumSum(up, zero_i)"},
        r"\(CumSum\).*no operation of a vision transformer",
    ),
    "random numbers": (
        {"activation": "noise = RandomUniformLike(fc1.bias)  active = Add(up, noise)"},
        r"\(RandomUniformLike\).*random numbers.*masked autoencoder without",
    ),
    "dropout in training": (
        {"activation": "yes = Constant <value = bool {1}> ()  active = Dropout(up, half, yes)"},
        r"\(Dropout\).*random numbers.*in inference mode",
    ),
    "batch norm in training": (
        {"activation": "four9 = Constant <value = float[4] {1.0, 1.0, 1.0, 1.0}> ()\n"
         "active, m9, v9 = BatchNormalization <training_mode = 1> "
         "(up, four9, four9, four9, four9)"},
        r"\(BatchNormalization\).*training_mode is 1\); export the model in inference mode",
    ),
    "operator of an unknown domain": (
        {"activation": "active = com.microsoft.Rfft(up)"},
        r"\(com\.microsoft\.Rfft\)",
    ),
    "tokens mixed by a constant": (
        {**NO_TRANSFORMER, "out": "mix = MatMul(mixer, x)  z = Add(x, mix)"},
        "is damaged",
    ),
    "attention mask from the image": (
        {
            "scores": "raw = MatMul(q, k)  mm = ReduceMean <keepdims = 1> (raw)\n"
            "scores = Add(raw, mm)"
        },
        "is not supported",
    ),
    "hidden output": (
        {"head": "logits = Transpose <perm = [2, 0, 1]> (z)", "pool": ""},
        r"\(Transpose\) is not supported",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name: str) -> None:
    slots, words = UNSUPPORTED[name]
    model = tiny(opset=18, **slots)
    if not words:
        canonicalise(model)  # what nothing uses does not matter
        return
    with pytest.raises(ModelError) as caught:
        canonicalise(model)
    text = one_sentence(caught.value)
    assert re.search(words, text), text
    assert "; " in text
    if "damaged" not in words:
        assert isinstance(caught.value, UnsupportedOpError)
        assert re.match(r"Node '\w+' \([\w.]+\) is not supported: ", text), text
