"""InferenceSession as ONNX Runtime users expect it, on golden and float."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.support.synthetic import vision_transformer
from tests.unit.program.cases import copy_program
from vitrify.arch.errors import InputError, ModelError, ProgramError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.quant.evaluate import Evaluator
from vitrify.runtime import InferenceSession

MODEL = Path(__file__).parents[2] / "data" / "timm_ts17.onnx"
IMAGES = np.random.default_rng(4).random((3, 3, 4, 8)).astype(np.float32)


def test_golden_runs_a_program(tmp_path):
    copy_program().save(tmp_path / "copy.vfy")
    session = InferenceSession(tmp_path / "copy.vfy")
    (arg,) = session.get_inputs()
    assert (arg.name, arg.type, arg.shape) == ("image", "tensor(float)", ["N", 3, 4, 8])
    assert [o.name for o in session.get_outputs()] == ["rows"]
    (whole,) = session.run(None, {"image": IMAGES})
    assert whole.shape == (3, 9, 12)
    assert whole.dtype == np.float32
    (one,) = session.run(["rows"], {"image": IMAGES[1:2]})
    assert (one[0] == whole[1]).all()


def test_golden_equals_the_integer_graph():
    arch, graph = preset("nano"), vision_transformer(seed=1)
    program = compile_graph(graph, arch)
    images = np.random.default_rng(2).normal(size=(2, *graph.input.shape)).astype(np.float32)
    steps = []
    session = InferenceSession(program, progress=lambda done, total: steps.append((done, total)))
    results = session.run(None, {graph.input.name: images})
    expected = Evaluator(graph, arch).outputs(images)
    for out, (name, value) in zip(results, expected.items(), strict=True):
        assert (out == value.reshape(out.shape).astype(np.float32)).all(), name
    total = 2 * len(program.layers)
    assert steps == [(i + 1, total) for i in range(total)]


def test_golden_statistics():
    program = compile_graph(vision_transformer(seed=1), preset("nano"))
    session = InferenceSession(program)
    images = np.zeros((2, *program.input.shape), np.float32)
    session.run(None, {program.input.name: images})
    stats = session.statistics
    assert stats is not None
    data = stats.to_dict()
    assert data["images"] == 2
    assert data["macs"] == 2 * program.macs == sum(layer["macs"] for layer in data["layers"])
    assert data["array_macs"] == 32
    assert data["cycles"] is None
    assert data["utilisation"] is None
    assert data["dram_read_bytes"] + data["dram_write_bytes"] == 2 * program.dram_bytes
    assert data["dram_write_bytes"] == 2 * sum(o.size(8) for o in program.outputs)
    assert sum(layer["dram_read_bytes"] for layer in data["layers"]) == 2 * program.stream_bytes
    assert data["roofline_cycles"] >= data["macs"] / 32
    for key in (
        "macs",
        "array_macs",
        "cycles",
        "utilisation",
        "dram_read_bytes",
        "dram_write_bytes",
        "roofline_cycles",
    ):
        assert all(key in layer for layer in data["layers"])


def test_float_is_onnx_runtime():
    reference = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    arg = reference.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in arg.shape]
    images = np.random.default_rng(3).random((2, *shape[1:])).astype(np.float32)
    session = InferenceSession(MODEL, "float")
    assert session.get_inputs()[0].shape == arg.shape
    (result,) = session.run(None, {arg.name: images})
    expected = np.concatenate([reference.run(None, {arg.name: x[None]})[0] for x in images])
    assert np.allclose(result, expected, atol=1e-5)


def test_float_takes_pixels():
    session = InferenceSession(MODEL, "float", preprocess="mean=0.5,std=0.5")
    (arg,) = session.get_inputs()
    shape = (1, *(int(size) for size in arg.shape[1:]))
    pixels = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    floats = (pixels / np.float32(127.5) - 1).astype(np.float32)
    (result,) = session.run(None, {arg.name: pixels})
    assert np.allclose(result, session.run(None, {arg.name: floats})[0], atol=1e-4)
    with pytest.raises(InputError, match="is uint8, but nothing says"):
        InferenceSession(MODEL, "float").run(None, {arg.name: pixels})


def with_source(name="timm_ts17.onnx", sha256=None):
    digest = sha256 or hashlib.sha256(MODEL.read_bytes()).hexdigest()
    return copy_program(metadata={"source": {"name": name, "sha256": digest}})


def test_float_finds_the_model_behind_a_program(tmp_path, monkeypatch):
    """Beside the program, in the working directory, or where the user says; nowhere else."""
    program = with_source()
    program.save(tmp_path / "p.vfy")
    assert str(MODEL.parent).encode() not in (tmp_path / "p.vfy").read_bytes()
    with pytest.raises(InputError, match=r"'timm_ts17\.onnx', from which .* is neither beside"):
        InferenceSession(tmp_path / "p.vfy", "float")
    (tmp_path / "timm_ts17.onnx").symlink_to(MODEL)
    assert InferenceSession(tmp_path / "p.vfy", "float").get_outputs()
    monkeypatch.chdir(tmp_path)
    assert InferenceSession(program, "float").get_outputs()
    with pytest.raises(InputError, match="is not the model that 'copy' was compiled from"):
        InferenceSession(with_source(sha256="0" * 64), "float")
    assert InferenceSession(copy_program(), "float", onnx=MODEL).get_outputs()
    with pytest.raises(InputError, match=r"no float model 'gone\.onnx'"):
        InferenceSession(copy_program(), "float", onnx="gone.onnx")
    with pytest.raises(InputError, match="--float-model belongs to a program"):
        InferenceSession(MODEL, "float", onnx=MODEL)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x.onnx", "a/b.onnx", ".."])
def test_a_program_cannot_send_the_float_backend_anywhere(name):
    with pytest.raises(InputError, match=r"does not say which that is|is neither beside"):
        InferenceSession(with_source(name), "float")


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_models_need_compiling(backend):
    with pytest.raises(InputError, match=rf"'{backend}' runs programs.*vitrify compile timm_ts17"):
        InferenceSession(MODEL, backend)


def test_user_errors(tmp_path):
    with pytest.raises(InputError, match="no backend is called 'gpu'; the backends are golden"):
        InferenceSession(copy_program(), "gpu")
    with pytest.raises(InputError, match="'golden' has no option 'speed'"):
        InferenceSession(copy_program(), speed=2)
    with pytest.raises(InputError, match=r"no file 'x\.vfy'"):
        InferenceSession("x.vfy")
    with pytest.raises(ProgramError, match="not for 'ulx3s'"):
        InferenceSession(copy_program(), arch="ulx3s")
    with pytest.raises(InputError, match="'zoom=1' is not known"):
        InferenceSession(copy_program(), preprocess="zoom=1")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="is no ONNX model that ONNX Runtime can load"):
        InferenceSession(tmp_path / "bad.onnx", "float")
    session = InferenceSession(copy_program())
    with pytest.raises(InputError, match="no input 'x'; its input is 'image'"):
        session.run(None, {"x": IMAGES})
    with pytest.raises(InputError, match="input 'image' is missing"):
        session.run(None, {})
    with pytest.raises(InputError, match="no output 'y'; it has rows"):
        session.run(["y"], {"image": IMAGES})
    with pytest.raises(InputError, match=r"takes \[N, 3, 4, 8\]"):
        session.run(None, {"image": IMAGES[0]})


def test_the_arch_may_differ_where_the_contract_does_not():
    arch = dataclasses.replace(preset("nano"), name="mine", clock_mhz=12.0)
    session = InferenceSession(copy_program(), arch=arch)
    session.run(None, {"image": IMAGES})
    assert session.statistics is not None
    assert session.statistics.to_dict()["clock_mhz"] == 12.0


def test_golden_needs_numpy_only():
    """A board has neither a simulator nor ONNX Runtime."""
    code = (
        "import sys; from vitrify.runtime import InferenceSession\n"
        "import vitrify.runtime.backends.golden\n"
        "bad = [m for m in ('onnxruntime', 'onnx', 'amaranth', 'cocotb', 'rich', 'PIL', 'yaml')"
        " if m in sys.modules]\n"
        "assert not bad, bad"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={"PYTHONPATH": "hw:sw:sim"},
        cwd=Path(__file__).parents[3],
    )


def test_as_onnx_runtime_is_called(tmp_path):
    path = tmp_path / "copy.vfy"
    copy_program().save(path)
    (expected,) = InferenceSession(path).run(None, {"image": IMAGES})

    class Named:
        def __fspath__(self):
            return str(path)

    for model in (path.read_bytes(), bytearray(path.read_bytes()), str(path), Named()):
        session = InferenceSession(model)
        for wanted in (None, ["rows"], ("rows",)):
            (found,) = session.run(wanted, {"image": IMAGES}, None)
            assert (found == expected).all()
    for array in (IMAGES.astype(np.float64), IMAGES.tolist()):
        assert (session.run(None, {"image": array})[0] == expected).all()
    half = session.run(None, {"image": IMAGES.astype(np.float16)})[0]
    assert np.abs(half - expected).max() <= 0.5
    assert session.run(None, {"image": (IMAGES * 255).astype(np.uint8)})[0].shape == (3, 9, 12)


def test_options_of_onnx_runtime():
    program = copy_program()
    (expected,) = InferenceSession(program).run(None, {"image": IMAGES})
    options = ort.SessionOptions()
    for session in (
        InferenceSession(program, options), InferenceSession(program, None),
        InferenceSession(program, sess_options=options, providers=["golden"]),
    ):
        assert session.backend == "golden"
        (found,) = session.run(None, {"image": IMAGES}, ort.RunOptions())
        assert (found == expected).all()
    stop = ort.RunOptions()
    stop.terminate = True
    with pytest.raises(InputError, match="say to terminate"):
        session.run(None, {"image": IMAGES}, stop)


def test_run_async_answers_in_order():
    session = InferenceSession(copy_program())
    expected = [session.run(None, {"image": IMAGES + shift})[0] for shift in (0.0, 0.25)]
    answers = []
    caller = threading.get_ident()

    def callback(results, user_data, error):
        answers.append((results, user_data, error, threading.get_ident()))

    session.run_async(None, {"image": IMAGES}, callback, "first")
    session.run_async(["rows"], {"image": IMAGES + 0.25}, callback, 2, ort.RunOptions())
    session.run_async(None, {"picture": IMAGES}, callback)
    session.close()
    (first, second, third) = answers
    assert first[1:3] == ("first", "")
    assert second[1:3] == (2, "")
    assert (first[0][0] == expected[0]).all()
    assert (second[0][0] == expected[1]).all()
    assert third[:2] == ([], None)
    assert "no input 'picture'" in third[2]
    assert caller not in {answer[3] for answer in answers}
    with pytest.raises(InputError, match="closed"):
        session.run_async(None, {"image": IMAGES}, callback)


def test_a_callback_closes_its_session():
    session, going, ended = InferenceSession(copy_program()), threading.Event(), threading.Event()
    answers = []

    def first(*_):
        going.wait(60)
        session.close()

    def second(results, _, error):
        answers.append((results, error))
        ended.set()

    session.run_async(None, {"image": IMAGES}, first)
    session.run_async(None, {"image": IMAGES}, second)
    going.set()
    assert ended.wait(60)
    assert answers == [([], "the session is closed; make a new one")]


def test_what_a_callback_raises_is_not_lost(monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    with InferenceSession(copy_program()) as session:
        session.run_async(None, {"image": IMAGES}, lambda results: results)
    assert "3 were given" in str(told[0].exc_value)


@pytest.mark.parametrize(("call", "message"), [
    (lambda s: s.run_async(None, {"image": IMAGES}, None), "callback must be a function, not None"),
    (lambda s: s.run("rows", {"image": IMAGES}), "must be a list of names or None, not 'rows'"),
    (lambda s: s.run(3, {"image": IMAGES}), "must be a list of names or None, not 3"),
    (lambda s: s.run([None], {"image": IMAGES}), "no output None"),
    (lambda s: s.run(None, IMAGES), "must be a dictionary .* not ndarray"),
    (lambda s: s.run(None, {"image": IMAGES}, {}), "run_options must be RunOptions"),
    (lambda _: InferenceSession(copy_program(), sess_options=3), "must be SessionOptions .* not 3"),
    (lambda s: s.run(None, {"image": None}), "must be float or uint8, not object"),
    (lambda s: s.run(None, {"image": [[1], [1, 2]]}), "is no array"),
    (lambda s: s.run(None, {"image": "x"}), "must be float or uint8"),
    (lambda s: s.run(None, {"image": IMAGES + 1j}), "must be float or uint8, not complex"),
    (lambda s: s.run(None, {"image": IMAGES.astype(np.int8)}), "must be float or uint8, not int8"),
    (lambda s: s.run(None, {"image": np.full(IMAGES.shape, 1e300)}), "not finite"),
    (lambda s: s.run(None, {"image": IMAGES[:0]}), "holds no image"),
    (lambda s: s.run(None, {7: IMAGES}), "no input 7"),
    (lambda _: InferenceSession(b"not a program"), "is not a Vitrify program"),
    (lambda _: InferenceSession(None), "is given by its path, not by None"),
    (lambda _: InferenceSession("x" * 5000), "path|no file"),
    (lambda _: InferenceSession("a\0b"), "path|no file"),
])
def test_wrong_calls(call, message):
    with pytest.raises((InputError, ProgramError), match=message):
        call(InferenceSession(copy_program()))


@pytest.mark.parametrize(("kind", "shape", "name"), [
    (TensorProto.STRING, [3], "tensor(string)"), (TensorProto.STRING, [3, 3, 3], "tensor(string)"),
    (TensorProto.FLOAT8E4M3FN, [3, 3, 3], "tensor(float8e4m3fn)"),
], ids=["texts", "images of texts", "images of bytes"])  # fmt: skip
def test_inputs_that_are_no_numbers(kind, shape, name, tmp_path):
    x, y = (helper.make_tensor_value_info(value, kind, ["N", *shape]) for value in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    imports = [helper.make_opsetid("", 19)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=imports), tmp_path / "m.onnx")
    with pytest.raises(ModelError) as raised:
        InferenceSession(tmp_path / "m.onnx", "float")
    assert str(raised.value) == (
        f"input 'x' of model 'm.onnx' is of the type {name}, but numbers or booleans are needed"
    )
