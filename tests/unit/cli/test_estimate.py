"""``vitrify estimate``: programs, models, and what users do wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import vitrify
from tests.support.synthetic import vision_transformer
from vitrify.arch.boards import BOARDS
from vitrify.arch.presets import preset
from vitrify.cli.layers import alike
from vitrify.cli.main import main
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.program import Program

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compile_graph(vision_transformer(), preset("nano")).save("m.vfy")
    (tmp_path / "model.onnx").write_bytes((ROOT / "tests/data/timm_ts17.onnx").read_bytes())


def test_program(capsys):
    data = json.loads(vitrify(capsys, "estimate", "m.vfy", "--json"))
    program = Program.load("m.vfy")
    assert data["cycles"] == estimate(program).cycles
    assert data["macs"] == program.macs
    assert data["fits"] is True
    assert data["milliseconds"] == pytest.approx(data["cycles"] / 80e3)
    assert 0 < data["token_memory_bytes"] <= data["token_memory_capacity"]
    assert {layer["name"] for layer in data["layers"]} == {x.name for x in program.layers}
    text = vitrify(capsys, "estimate", "m.vfy")
    assert f"{data['cycles']:,}" in text
    assert data["bottleneck"] in text
    assert "LFE5U-85F: fits" in text


def test_layers_that_differ_in_a_number_are_one_line(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    data = json.loads(vitrify(capsys, "estimate", "m.vfy", "--json"))
    for command in ("estimate", "info"):
        whole, short = (vitrify(capsys, command, "m.vfy", *more) for more in (["--layers"], []))
        assert all(layer["name"] in whole for layer in data["layers"])
        assert len(short.splitlines()) < len(whole.splitlines())
    together = {
        name: sum(layer["cycles"] for layer in layers)
        for name, layers in alike((layer["name"], layer) for layer in data["layers"]).items()
    }
    text = vitrify(capsys, "estimate", "m.vfy")
    for name, cycles in together.items():
        assert re.search(rf"{re.escape(name)} .* {cycles:,} ", text), name


def test_only_a_number_by_itself_is_one():
    names = ("blocks.0.mlp.fc1", "blocks.0.mlp.fc2", "blocks.1.mlp.fc1", "/layer_2/s[0]", "s[3]")
    assert list(alike((name, None) for name in names)) == [
        "blocks.*.mlp.fc1 × 2", "blocks.0.mlp.fc2", "/layer_2/s[0]", "s[3]",
    ]


def test_a_program_on_a_core_with_another_memory(capsys):
    Path("slow.yaml").write_text("base: nano\ndram: {latency: 500, outstanding: 1}\n")
    fast = json.loads(vitrify(capsys, "estimate", "m.vfy", "--json"))
    slow = json.loads(vitrify(capsys, "estimate", "m.vfy", "--arch", "slow.yaml", "--json"))
    assert slow["cycles"] > 5 * fast["cycles"]
    assert slow["bottleneck"] == "weights"


def test_a_model_is_compiled_with_noise_or_with_images(capsys):
    noise = json.loads(vitrify(capsys, "estimate", "model.onnx", "--arch", "ulx3s", "--json"))
    vitrify(capsys, "estimate", "model.onnx", "--arch", "ulx3s")
    _, c, h, w = 1, *shape_of_model()
    images = np.random.default_rng(1).normal(size=(4, c, h, w)).astype(np.float32)
    np.save("calib.npy", images)
    real = json.loads(vitrify(
        capsys, "estimate", "model.onnx", "--arch", "ulx3s", "--calib", "calib.npy", "--json"
    ))
    assert noise["cycles"] == pytest.approx(real["cycles"], rel=0.02)
    assert not list(Path().glob("model.vfy"))


def test_watts_where_designs_are_published(capsys):
    found = json.loads(vitrify(capsys, "estimate", "model.onnx", "--arch", "reference", "--json"))
    power, rate = found["power"], found["images_per_second"]
    assert power["least_watts"] < power["watts"] < power["most_watts"]
    assert power["images_per_second_per_watt"] == pytest.approx(rate / power["watts"])
    assert power["millijoules_an_image"] == pytest.approx(1e3 * power["watts"] / rate)
    text = vitrify(capsys, "estimate", "model.onnx", "--arch", "reference")
    assert f"{power['watts']:.1f} W (" in text
    assert json.loads(vitrify(capsys, "estimate", "m.vfy", "--json"))["power"] is None
    assert " W (" not in vitrify(capsys, "estimate", "m.vfy")


def shape_of_model():
    from vitrify.cli.models import image_input

    return image_input(Path("model.onnx"))[1]


@pytest.mark.parametrize(("arguments", "message"), [
    (("gone.vfy",), "no file 'gone.vfy'"),
    (("model.onnx",), "say with --arch or --board for which core"),
    (("m.vfy", "--arch", "kv260"), "compile it again with --arch kv260"),
    (("m.vfy", "--calib", "x.npy"), "'m.vfy' is a program: --calib would belong to a model"),
    (("m.vfy", "--weights", "8"), "is a program: --weights would belong to a model"),
    (("m.vfy", "--weights", "auto", "--budget-bytes", "9"), ": --weights, --budget-bytes would"),
    (("model.onnx", "--arch", "ulx3s", "--calib", "gone.npy"), "'gone.npy' does not exist"),
], ids=str)
def test_errors(capsys, arguments, message):
    assert message in vitrify(capsys, "estimate", *arguments, code=2)


def test_board_clock_and_memory(capsys):
    """The conditions of a board, of a clock, of a memory, each with its figures in the JSON."""

    def ask(*arguments):
        return json.loads(vitrify(capsys, "estimate", "m.vfy", *arguments, "--json"))

    plain, there = ask(), ask("--board", "kv260")
    assert plain["conditions"].endswith("no board of vitrify.arch.boards")
    assert (there["clock_mhz"], there["part"]) == (200, BOARDS["kv260"].part.name)
    assert "kv260 as `vitrify build` makes it" in there["conditions"]
    assert there["memory"]["bandwidth"] == BOARDS["kv260"].memory.dram.bandwidth
    assert there["milliseconds"] == pytest.approx(there["cycles"] / 200e3)
    slow = ask("--board", "kv260", "--dram-bandwidth", "0.1", "--clock", "100")
    assert slow["clock_mhz"] == 100
    assert slow["memory"]["bytes_per_cycle"] == pytest.approx(1)
    # A byte a cycle is what binds: nothing is faster than that.
    assert slow["cycles"] > slow["dram_read_bytes"]
    assert slow["roofline_cycles"] == pytest.approx(
        slow["dram_read_bytes"] + slow["dram_write_bytes"], rel=1e-3
    )
    model = json.loads(vitrify(capsys, "estimate", "model.onnx", "--board", "zcu102", "--json"))
    assert model["memory"]["ports"] == 4
    text = vitrify(capsys, "estimate", "m.vfy", "--board", "kv260")
    assert "never placed, never on a board" in text
    assert "14.40 GB/s" in " ".join(text.split())


@pytest.mark.parametrize(("arguments", "words"), [
    (("--board", "arty"), "no board is called 'arty'; the boards are ulx3s, colorlight-i9"),
    (("--board", "ulx3s"), "has 2 memory ports, and ulx3s offers 1"),
    (("--clock", "0"), "--clock must be 1 to 1000 MHz, not 0"),
    (("--clock", "nan"), "--clock must be 1 to 1000 MHz, not nan"),
    (("--dram-bandwidth", "-1"), "--dram-bandwidth must be 0.001 to 10000 GB/s, not -1"),
])
def test_conditions_that_do_not_exist(arguments, words, capsys):
    assert main(["estimate", "m.vfy", *arguments]) == 2
    assert words in capsys.readouterr().err
