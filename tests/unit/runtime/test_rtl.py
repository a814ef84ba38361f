"""The simulated nano core: every tensor as golden's, whatever the DRAM does; cost adds up."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch.boards import board
from vitrify.arch.errors import InputError
from vitrify.arch.presets import preset
from vitrify.cli.main import main
from vitrify.compiler import compile_graph
from vitrify.cosim.check import Checker, MismatchError
from vitrify.program import Application, CorePart, HostPart, ImageSpec
from vitrify.runtime import InferenceSession
from vitrify.runtime.backends import rtl

pytestmark = pytest.mark.slow

ARCH = preset("nano")
GRAPH = vision_transformer(seed=1)
PROGRAM = compile_graph(GRAPH, ARCH)
NAME = PROGRAM.input.name
IMAGES = np.random.default_rng(2).normal(size=(3, *PROGRAM.input.shape)).astype(np.float32)
GOLDEN = InferenceSession(PROGRAM).run(None, {NAME: IMAGES})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"latency": 300, "outstanding": 1},
        {"bytes_per_cycle": 0.7},
        {"stall": 0.4, "seed": 5},
        {"dram": "ulx3s"},
        {"dram": "zcu102", "stall": 0.2},
    ],
    ids=str,
)
def test_every_tensor_equals_golden(options):
    session = InferenceSession(PROGRAM, "rtl", check=True, **options)
    for got, expected in zip(session.run(None, {NAME: IMAGES}), GOLDEN, strict=True):
        assert (got == expected).all()


@pytest.mark.parametrize("options", [{}, {"dram": "ideal", "stall": 0.4}], ids=str)
def test_several_ports(options):
    """A program of one port runs on a core with two, behind one memory."""
    arch = dataclasses.replace(ARCH, name="striped", ports=2, dram=board("ulx3s").memory.dram)
    program = dataclasses.replace(PROGRAM, arch=arch)
    session = InferenceSession(program, "rtl", check=True, **options)
    for got, expected in zip(session.run(None, {NAME: IMAGES}), GOLDEN, strict=True):
        assert (got == expected).all()


def test_statistics_add_up():
    seen = []
    session = InferenceSession(
        PROGRAM, "rtl", progress=lambda done, total: seen.append((done, total))
    )
    results = session.run(None, {NAME: IMAGES})
    assert (results[0] == GOLDEN[0]).all()
    assert seen[-1] == (3 * len(PROGRAM.layers), 3 * len(PROGRAM.layers))
    stats = session.statistics
    assert stats is not None
    data = stats.to_dict()
    assert data["dram_read_bytes"] + data["dram_write_bytes"] == 3 * PROGRAM.dram_bytes
    assert data["macs"] == 3 * PROGRAM.macs
    assert data["cycles"] >= data["roofline_cycles"]
    assert data["utilisation"] == pytest.approx(data["macs"] / (data["cycles"] * 32))
    layers = sum(layer["cycles"] for layer in data["layers"])
    # From the first JOB_PUSH on, up to the last write: without the STORE at the end.
    assert 0.9 * data["cycles"] < layers <= 1.02 * data["cycles"]
    # Every cycle of the row fetch is a row or a stall.
    assert data["counters"]["ARRAY_BUSY"] + sum(data["stalls"].values()) == data["cycles"]
    # A second run starts afresh.
    session.run(None, {NAME: IMAGES})
    again = session.statistics
    assert again is not None
    assert again.cycles == data["cycles"]


def test_a_difference_stops_the_run_and_is_named():
    """The core runs one program, golden another with a different weight."""
    session = InferenceSession(PROGRAM, "rtl", check=True)
    layer = next(layer for layer in PROGRAM.layers if layer.name.endswith("fc1"))
    op = list(PROGRAM.instructions())[layer.instruction]
    image = PROGRAM.image.copy()
    image[op.stream_offset + (op.stream_words - 1) * ARCH.depth] ^= 1
    changed = dataclasses.replace(PROGRAM, image=image)

    class Other(Checker):
        def __init__(self, _program, regions, **options):
            super().__init__(changed, regions, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtl, "Checker", Other)
        with pytest.raises(
            MismatchError,
            match=(
                rf"image 0, layer '{layer.name}', instruction {layer.instruction}: tensor .* "
                rf"differs from golden: row \d+, channel \d+ \(c tile \d+\) is .*, "
                rf"written in cycle \d+"
            ),
        ):
            session.run(None, {NAME: IMAGES})


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PROGRAM.save("m.vfy")
    np.save("x.npy", IMAGES[:1])
    assert (
        main(
            [
                "run",
                "m.vfy",
                "--input",
                "x.npy",
                "--backend",
                "rtl",
                "--check",
                "-o",
                "o.npz",
                "--stats",
                "s.json",
                "--dram-latency",
                "50",
            ]
        )
        == 0
    )
    assert "every tensor equal: rtl = golden" in capsys.readouterr().out
    assert (np.load("o.npz")["logits"] == GOLDEN[0][:1]).all()
    assert json.loads(Path("s.json").read_text())["cycles"] > 0


def header(file: str) -> tuple[int, int, int]:
    """First and last time of a waveform, and how many signals it has: the FST's first block."""
    data = Path(file).read_bytes()
    assert data[0] == 0
    begin, end, _, _, _, signals = struct.unpack(">QQdQQQ", data[9:57])
    return begin, end, signals


def test_waveform(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PROGRAM.save("m.vfy")
    np.save("x.npy", IMAGES[:1])
    assert main(["run", "m.vfy", "--input", "x.npy", "--backend", "rtl", "--trace", "t.fst"]) == 0
    begin, end, signals = header("t.fst")
    assert begin == 0
    one = ["run", "m.vfy", "--input", "x.npy", "--backend", "rtl", "--trace", "p.fst"]
    assert main([*one, "--trace-depth", "1"]) == 0
    assert header("p.fst")[:2] == (begin, end)
    assert 10 < header("p.fst")[2] < signals / 10
    assert main([*one, "--trace-cycles", "300:900"]) == 0
    assert header("p.fst") == (600, 1799, signals)
    # The last layer is one MATMUL: the rest of the job, behind the results of the one before it.
    first, last = PROGRAM.layers[0].name, PROGRAM.layers[-1].name
    assert main([*one, "--trace-layer", last]) == 0
    begun, ended, _ = header("p.fst")
    assert end / 2 < begun < ended == end
    assert main([*one, "--trace-layer", first]) == 0
    begun, ended, _ = header("p.fst")
    assert begun == begin
    assert ended < end / 2


def test_user_errors():
    with pytest.raises(InputError, match="'rtl' has no option 'speed'"):
        InferenceSession(PROGRAM, "rtl", speed=1)
    with pytest.raises(InputError, match="DRAM latency must be"):
        InferenceSession(PROGRAM, "rtl", latency=-3)
    with pytest.raises(InputError, match="the depth of a trace must be 1 to 99, not 0"):
        InferenceSession(PROGRAM, "rtl", trace="x.fst", trace_depth=0)
    with pytest.raises(InputError, match="and a later end, not 7:7"):
        InferenceSession(PROGRAM, "rtl", trace="x.fst", trace_cycles=(7, 7))
    with pytest.raises(InputError, match="no layer 'haed'; did you mean 'head'"):
        InferenceSession(PROGRAM, "rtl", trace="x.fst", trace_layer="haed")
    with pytest.raises(InputError, match="need a trace"):
        InferenceSession(PROGRAM, "rtl", trace_depth=2)
    experts = compile_graph(vision_transformer(mixture=Mixture(experts=4)), preset("nano"))
    with pytest.raises(InputError, match=r"has experts.*--trace-cycles"):
        InferenceSession(experts, "rtl", trace="x.fst", trace_layer=experts.layers[0].name)


@pytest.mark.parametrize("cycles", ["7", "7-9", "a:b", ":9", "9" * 50])
def test_cycles_of_a_trace(cycles, capsys):
    assert main(["run", "m.vfy", "--input", "x.npy", "--trace-cycles", cycles]) == 2
    assert "must be FIRST:END, two cycles" in capsys.readouterr().err


def test_an_application_equals_golden() -> None:
    images, out = IMAGES[:2], PROGRAM.outputs[0]
    model = helper.make_model(helper.make_graph(
        [helper.make_node("Softmax", [out.name], ["y"], axis=-1)], "host",
        [helper.make_tensor_value_info(out.name, 1, ["N", *out.shape])],
        [helper.make_tensor_value_info("y", 1, ["N", *out.shape])],
    ), ir_version=10, opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip
    application = Application(
        model="softmax", inputs=(ImageSpec(name=NAME, shape=PROGRAM.input.shape),),
        outputs=("y", out.name), parts=(
            CorePart(program=PROGRAM, reads=(NAME,)), HostPart(model=model.SerializeToString()),
        ),
    )  # fmt: skip
    results = []
    for backend in ("rtl", "golden"):
        with InferenceSession(application, backend) as session:
            results.append(session.run(None, {NAME: images}))
            assert session.statistics is not None
            assert session.statistics.host_seconds > 0
    for found, expected in zip(*results, strict=True):
        assert np.array_equal(found, expected)
