"""The command line: what it prints and writes, and one sentence for everything that is wrong."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.command import vitrify
from tests.support.synthetic import vision_transformer
from tests.unit.program.cases import copy_program
from vitrify.arch.describe import reference
from vitrify.arch.presets import PRESETS, preset
from vitrify.arch.text import visible
from vitrify.cli.main import main
from vitrify.compiler import compile_graph
from vitrify.program import Program

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "tests" / "data" / "timm_ts17.onnx"
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 8)).astype(np.uint8)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Every test in an empty directory, with a program, a model and inputs beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITRIFY_DEBUG", raising=False)
    copy_program().save("copy.vfy")
    Path("model.onnx").write_bytes(MODEL.read_bytes())
    np.save("pixels.npy", PIXELS)
    shape = model_shape()
    rng = np.random.default_rng(1)
    np.save("calib.npy", rng.normal(size=(4, *shape)).astype(np.float32))
    np.save("x.npy", rng.normal(size=(2, *shape)).astype(np.float32))
    return tmp_path


def model_shape():
    sizes = onnx.load(MODEL).graph.input[0].type.tensor_type.shape.dim
    return tuple(size.dim_value for size in sizes)[1:]


def files():
    return {p.name for p in Path().iterdir()}


# compile and run -------------------------------------------------------------------------------
def test_compile_then_run(capsys):
    out = vitrify(
        capsys,
        "compile",
        "model.onnx",
        "--arch",
        "ulx3s",
        "--calib",
        "calib.npy",
        "--keep-intermediates",
        "kept",
    )
    assert "model.vfy: model for ulx3s" in out
    program = Program.load("model.vfy")
    left_out = program.metadata["macs_left_out"]
    share = f"{100 * left_out / (program.macs + left_out):.1f} %"
    assert f"M MACs ({share} more would be for rows that nothing reads)" in " ".join(out.split())
    assert program.metadata["source"]["name"] == "model.onnx"
    assert str(Path.cwd()).encode() not in Path("model.vfy").read_bytes()
    assert len(list(Path("kept").glob("*.onnx"))) >= 4

    for backend in ("golden", "float"):
        vitrify(
            capsys,
            "run",
            "model.vfy",
            "--input",
            "x.npy",
            "--backend",
            backend,
            "-o",
            f"{backend}.npz",
        )
    golden, exact = (dict(np.load(f"{b}.npz")) for b in ("golden", "float"))
    assert golden.keys() == exact.keys()
    for name, value in exact.items():
        assert golden[name].shape == value.shape
        # int8 against float: the same picture, not the same digits
        assert np.corrcoef(golden[name].ravel(), value.ravel())[0, 1] > 0.9

    vitrify(capsys, "run", "model.onnx", "--input", "x.npy", "--backend", "float", "-o", "b.npz")
    assert all((np.load("b.npz")[name] == value).all() for name, value in exact.items())


def test_run_writes_outputs_and_statistics(capsys):
    out = vitrify(
        capsys,
        "run",
        "copy.vfy",
        "--input",
        "image=pixels.npy",
        "pixels.npy",
        "--input",
        "pixels.npy",
        "-o",
        "o.npz",
        "--stats",
        "s.json",
    )
    assert "6 images" in out
    assert np.load("o.npz")["rows"].shape == (6, 9, 12)
    stats = json.loads(Path("s.json").read_text())
    for key in (
        "cycles",
        "macs",
        "array_macs",
        "utilisation",
        "dram_read_bytes",
        "dram_write_bytes",
        "roofline_cycles",
        "layers",
    ):
        assert key in stats
    assert stats["images"] == 6


def test_run_prints_classes(capsys):
    program = compile_graph(vision_transformer(seed=1), preset("nano"))
    program.save("v.vfy")
    np.save("v.npy", np.zeros((1, *program.input.shape), np.float32))
    out = vitrify(capsys, "run", "v.vfy", "--input", "v.npy")
    assert "#1" in out
    data = json.loads(vitrify(capsys, "run", "v.vfy", "--input", "v.npy", "--json"))
    row = data["outputs"]["logits"][0]
    assert f"{int(np.argmax(row))} ({max(row):.3f})" in out
    assert data["statistics"]["macs"] == program.macs


# info, describe --------------------------------------------------------------------------------
def test_info(capsys):
    assert "runs on        nano" in vitrify(capsys, "info", "copy.vfy")
    assert json.loads(vitrify(capsys, "info", "copy.vfy", "--json"))["instructions"] == 3
    text = vitrify(capsys, "info", "model.onnx")
    assert "on the core    yes" in text
    assert "Attention" in text
    for name in PRESETS:
        assert json.loads(vitrify(capsys, "info", name, "--json"))["name"] == name
    Path("mine.yaml").write_text("base: nano\nmax_rows: 64\ndram: {latency: 7}\n")
    data = json.loads(vitrify(capsys, "info", "mine.yaml", "--json"))
    assert (data["name"], data["rows a tile"]) == ("mine", 64)
    dram = data["settings"]["dram"]
    assert (dram["latency"], dram["outstanding"], dram["bandwidth"]) == (7, 4, 0)


def test_describe_and_the_committed_reference(capsys):
    assert vitrify(capsys, "describe") == reference()
    vitrify(capsys, "describe", "-o", "r.md")
    assert Path("r.md").read_text() == reference()
    committed = (ROOT / "hw" / "REFERENCE.md").read_text()
    assert committed == reference(), "run `vitrify describe -o hw/REFERENCE.md`"


def test_help_and_version(capsys):
    for arguments in (["--help"], ["--version"], ["run", "--help"], ["emit", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
    assert "--keep-intermediates" not in capsys.readouterr().err


# what users do wrong ---------------------------------------------------------------------------
def not_a_transformer(path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *model_shape()])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def damage(kind):
    """Make the file that a case needs."""
    data = Path("copy.vfy").read_bytes()
    model = Path("model.onnx").read_bytes()
    if kind == "truncated program":
        Path("bad.vfy").write_bytes(data[:-10])
    elif kind == "corrupt program":
        Path("bad.vfy").write_bytes(data[:-10] + b"0123456789")
    elif kind == "foreign program":
        Path("bad.vfy").write_bytes(b"something else")
    elif kind == "malformed model":
        Path("bad.onnx").write_bytes(b"not an onnx file at all")
    elif kind == "truncated model":
        Path("bad.onnx").write_bytes(model[: len(model) // 2])
    elif kind == "no transformer":
        not_a_transformer("bad.onnx")
    elif kind == "no yaml":
        Path("bad.yaml").write_text("{ [")
    elif kind == "wrong arch":
        Path("bad.yaml").write_text("base: nano\ndepth: 12\n")
    elif kind == "wrong type":
        Path("bad.yaml").write_text("base: nano\nbanks: many\n")
    elif kind == "unknown setting":
        Path("bad.yaml").write_text("base: nano\ncolour: red\n")
    elif kind == "wrong shape":
        np.save("bad.npy", np.zeros((1, 3, 8, 8), np.float32))


COMPILE = ("compile", "--arch", "ulx3s", "--calib", "calib.npy")
RUN = ("run", "--input", "pixels.npy", "--")
ERRORS = {
    "malformed model": ((*COMPILE, "bad.onnx"), "no ONNX model or is damaged"),
    "truncated model": ((*COMPILE, "bad.onnx"), "no ONNX model or is damaged"),
    "no transformer": ((*COMPILE, "bad.onnx"), r"Node '' \(Det\) is not supported"),
    "missing model": ((*COMPILE, "gone.onnx"), "'gone.onnx' does not exist"),
    "too big": (
        ("compile", "model.onnx", "--arch", "tiny.yaml", "--calib", "calib.npy", "--strict"),
        "tensor 'tokens' needs 544 bytes of token memory",
    ),
    "no calibration": (
        ("compile", "model.onnx", "--arch", "ulx3s", "--calib", "gone.npy"),
        "'gone.npy' does not exist",
    ),
    "wrong calibration": (
        ("compile", "model.onnx", "--arch", "ulx3s", "--calib", "pixels.npy"),
        "the model takes",
    ),
    "unknown preset": (
        ("compile", "model.onnx", "--arch", "x", "--calib", "calib.npy"),
        "no preset is called 'x'; the presets are nano",
    ),
    "wrong preprocess": (
        (*COMPILE, "model.onnx", "--preprocess", "zoom=1"),
        "'zoom=1' is not known",
    ),
    "nowhere to write": (
        (*COMPILE, "model.onnx", "-o", "gone/m.vfy"),
        "directory 'gone' does not exist",
    ),
    "truncated program": ((*RUN, "bad.vfy"), "section 'image' has 182 of 192 bytes"),
    "corrupt program": ((*RUN, "bad.vfy"), "does not match its checksum"),
    "foreign program": ((*RUN, "bad.vfy"), "is not a Vitrify program"),
    "missing program": ((*RUN, "gone.vfy"), "no file 'gone.vfy'"),
    "other arch": (
        ("run", "copy.vfy", "--arch", "kv260", "--input", "pixels.npy"),
        "compiled for arch 'nano'.*compile it again",
    ),
    "wrong shape": (("run", "copy.vfy", "--input", "bad.npy"), r"takes \[N, 3, 4, 8\]"),
    "wrong input name": (
        ("run", "copy.vfy", "--input", "y=pixels.npy"),
        "no input 'y'; its input is 'image'",
    ),
    "missing input": (("run", "copy.vfy", "--input", "gone.npy"), "'gone.npy' does not exist"),
    "model on golden": ((*RUN, "model.onnx"), "vitrify compile model.onnx"),
    "unknown backend": (
        ("run", "copy.vfy", "--input", "pixels.npy", "--backend", "gpu"),
        "no backend is called 'gpu'",
    ),
    "check on golden": (
        ("run", "copy.vfy", "--input", "pixels.npy", "--check"),
        "--check belongs to --backend rtl",
    ),
    "trace on golden": (
        ("run", "copy.vfy", "--input", "pixels.npy", "--trace", "x.fst"),
        "--trace belongs to --backend rtl",
    ),
    "stats of float": (
        ("run", "model.onnx", "--input", "x.npy", "--backend", "float", "--stats", "s.json"),
        "--stats needs",
    ),
    "output is a directory": (
        ("run", "copy.vfy", "--input", "pixels.npy", "-o", "."),
        "it is a directory",
    ),
    "no yaml": (("info", "bad.yaml"), "'bad.yaml' is not YAML, line"),
    "wrong arch": (("info", "bad.yaml"), "depth must be a power of two from 4 to 128, not 12"),
    "wrong type": (("info", "bad.yaml"), "banks must be an integer, not 'many'"),
    "unknown setting": (("info", "bad.yaml"), "no setting 'colour'"),
    "missing yaml": (("info", "gone.yaml"), "cannot read arch file 'gone.yaml'"),
    "nothing known": (("info", "nothing"), "no preset is called 'nothing'"),
    "no seeds": (("synth", "--arch", "nano", "--seeds", "0"), "--seeds must be 1 or more, not 0"),
    "seeds of nothing": (
        ("synth", "--arch", "nano", "--no-route", "--seeds", "2"),
        "--no-route leaves out what --seeds repeats; give one of both",
    ),
    "seeds of units": (
        ("synth", "--arch", "nano", "--units", "--seeds", "2"),
        "--units places and routes nothing; leave out --seeds",
    ),
    "seeds of what nothing places": (
        ("synth", "--arch", "kv260", "--seeds", "2"),
        "nothing places and routes xck26-sfvc784-2LV-c here",
    ),
    "units that are not routed": (
        ("synth", "--arch", "nano", "--units", "--no-route"),
        "--units places and routes nothing; leave out --no-route",
    ),
    "units in the table of cores": (
        ("synth", "--arch", "nano", "--units", "--markdown", "resources.md"),
        "--markdown has the table of whole cores; leave out --units",
    ),
    "no command": ((), "required: COMMAND"),
    "unknown option": (("info", "nano", "--fast"), "unrecognized arguments: --fast"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_one_sentence_and_code_2(capsys, case):
    arguments, message = ERRORS[case]
    Path("tiny.yaml").write_text("base: ulx3s\nbank_words: 16\nbanks: 2\n")
    damage(case)
    before = files()
    line = vitrify(capsys, *arguments, code=2)
    assert re.search(message, line), line
    assert len(line) > 30
    assert files() == before, "something was left behind"


def test_bugs_are_not_blamed_on_the_user(capsys, monkeypatch):
    monkeypatch.setattr("vitrify.cli.describe.reference", lambda: 1 / 0)
    line = vitrify(capsys, "describe", code=1)
    assert "internal error, please report it: ZeroDivisionError" in line
    monkeypatch.setenv("VITRIFY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["describe"])


def test_interruption(capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("vitrify.cli.describe.reference", interrupt)
    assert main(["describe"]) == 130
    assert capsys.readouterr().err == "vitrify: interrupted\n"


@pytest.mark.slow
def test_emit(capsys):
    out = vitrify(capsys, "emit", "--arch", "nano", "-o", "core")
    assert "65 of 156 multipliers" in out
    names = {p.name for p in Path("core").iterdir()}
    assert {"vitrify_nano.v", "manifest.json", "estimate.json"} <= names
    manifest = json.loads(Path("core/manifest.json").read_text())
    assert manifest["arch_hash"] == f"{preset('nano').hash:08x}"
    assert "module vitrify_nano" in Path("core/vitrify_nano.v").read_text()
    Path("file").touch()
    line = vitrify(capsys, "emit", "--arch", "nano", "-o", "file/core", code=2)
    assert "cannot write to 'file/core'" in line


def test_outputs_of_any_name_and_place(capsys):
    out = copy_program().outputs[0]
    copy_program(outputs=(dataclasses.replace(out, name="file"),)).save("odd.vfy")
    vitrify(capsys, "run", "odd.vfy", "--input", "pixels.npy", "-o", "o.npz")
    assert np.load("o.npz")["file"].shape == (2, 9, 12)
    vitrify(capsys, "run", "odd.vfy", "--input", "pixels.npy", "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()
    for target in ("pixels.npy", "odd.vfy"):
        before = Path(target).read_bytes()
        line = vitrify(
            capsys, "run", "odd.vfy", "--input", "image=pixels.npy", "-o", target, code=2
        )
        assert "it is an input" in line
        assert Path(target).read_bytes() == before


@pytest.mark.parametrize("name", [
    "[/]", "[batch,3,16,16]", "[red]x", ":smile:", "a\x1b[2Jb\r", "\ud800", "[link=x]y[/link]",
])
def test_names_are_shown_as_they_are(capsys, name):
    """Neither markup nor terminal escapes."""
    program = copy_program()
    out = dataclasses.replace(program.outputs[0], name=name, shape=(9 * 12,))
    spec = dataclasses.replace(program.input, name=name)
    copy_program(model=name, outputs=(out,), input=spec, metadata={"note": name}).save("odd.vfy")
    shown = visible(name)
    text = vitrify(capsys, "info", "odd.vfy")
    assert text.count(shown) >= 4
    assert "\x1b" not in text
    for code, arguments in ((0, ("--input", "pixels.npy")), (2, ("--input", "b=pixels.npy"))):
        text = vitrify(capsys, "run", "odd.vfy", *arguments, code=code)
        assert "\x1b" not in text
    text = vitrify(capsys, "run", "odd.vfy", "--input", "pixels.npy")
    assert shown in text
