"""The report: figures that add up, and a page that a browser draws."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import document, screenshot
from tests.support.command import vitrify
from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch.presets import preset
from vitrify.cli.main import main
from vitrify.compiler import compile_graph
from vitrify.estimate import LIMITS, estimate
from vitrify.report import figures
from vitrify.report.flow import OUTPUTS, SOURCES, follow
from vitrify.runtime.activity import ARRAY_STATES

ROOT = Path(__file__).parents[3]
SECTIONS = {
    "summary", "engines-over-time", "cycles-by-block-and-layer", "roofline", "dram-traffic",
    "token-memory-over-time", "graph-of-layers", "quantisation", "resources",
}


@pytest.fixture(scope="module")
def program():
    return compile_graph(vision_transformer(), preset("nano"))


@pytest.fixture(scope="module")
def experts():
    arch = dataclasses.replace(preset("nano"), experts=4)
    return compile_graph(vision_transformer(mixture=Mixture(experts=4, choices=2)), arch)


def test_figures_add_up(program):
    result = estimate(program, trace=True)
    data = figures(result)
    assert json.loads(json.dumps(data)) == data
    assert data["summary"]["cycles"] == result.cycles
    assert sum(block["cycles"] for block in data["blocks"]) == (
        sum(layer["cycles"] for layer in data["layers"])
    )
    nodes = {node["name"]: node["cycles"] for node in data["graph"]["nodes"]}
    assert {name for edge in data["graph"]["edges"] for name in edge[:2]} <= nodes.keys()
    assert sum(filter(None, nodes.values())) == sum(layer["cycles"] for layer in data["layers"])
    for name, count in data["summary"]["lost_cycles"].items():
        assert sum(block["lost_cycles"][name] for block in data["blocks"]) == count
    # The array is in one state in every moment; averages weigh their times equally.
    series = data["occupancy"]["series"]
    array = [shares for name, shares in series.items() if name.startswith("array")]
    assert np.sum(array, axis=0) == pytest.approx(np.ones(len(array[0])), abs=1e-3)
    assert np.mean(series["array: row"]) == pytest.approx(
        1 - sum(result.stalls.values()) / result.cycles, abs=1e-3
    )
    assert np.mean(data["traffic"]["read_gbs"]) == pytest.approx(
        result.cost.dram_read_bytes / result.milliseconds / 1e6, rel=0.02
    )
    assert {"blocks.0", "blocks.1"} <= {block["name"] for block in data["blocks"]}
    assert data["routing"] is None


def test_figures_need_a_trace(program):
    with pytest.raises(ValueError, match="with a trace"):
        figures(estimate(program))


def test_the_graph_is_the_model(program):
    activity = estimate(program, trace=True).activity
    assert activity is not None
    flow = follow(program, activity)
    block = "blocks.1"
    for source, to in [
        *((f"{block}.q", f"{block}.attention.scores"), (f"{block}.k", f"{block}.attention.scores")),
        (f"{block}.attention.scores", f"{block}.attention.values"),
        (f"{block}.v", f"{block}.attention.values"), (f"{block}.attention.values", f"{block}.proj"),
        # The residual stream, around attention and around the MLP.
        ("blocks.0.fc2", f"{block}.proj"), (f"{block}.proj", f"{block}.fc2"),
        (f"{block}.fc1", f"{block}.fc2"), ("image", "embed"), ("head", OUTPUTS),
    ]:
        assert (source, to) in flow.edges
    assert (f"{block}.q", f"{block}.attention.values") not in flow.edges
    order = [*SOURCES.values(), *(layer.name for layer in program.layers), OUTPUTS]
    short = list(dict.fromkeys(re.sub(r"\[\d+\]$", "", name) for name in order))
    assert all(short.index(source) < short.index(to) for source, to in flow.edges)
    words = program.arch.token_words
    for tensor in flow.tensors:
        assert 0 <= tensor.begin <= tensor.end <= activity.cycles
        for bank, (low, high) in tensor.banks.items():
            assert bank * program.arch.bank_words <= low < high <= words
    # The residual stream of 16 bits lies in pairs of banks, and lives from the first layer on.
    residual = next(tensor for tensor in flow.tensors if tensor.name == "residual")
    assert residual.bits == 16
    assert len(residual.banks) % 2 == 0
    assert residual.end > 0.9 * activity.cycles


def test_experts(experts):
    data = figures(estimate(experts, trace=True))
    routed = data["routing"]
    assert routed["source"] == "uniform"
    for layer in routed["layers"]:
        assert sum(layer["counts"]) == layer["rows"] * layer["choices"]
    assert any("gate" in node["name"] for node in data["graph"]["nodes"])


def test_every_loss_and_state_has_a_colour_in_light_and_dark():
    style = (ROOT / "sw/vitrify/report/page/page.css").read_text()
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for name in ("work", *LIMITS):
        for theme in (light, dark):
            assert len(re.findall(rf"--{name}: #[0-9a-f]{{6}};", theme)) == 1, name
    script = (ROOT / "sw/vitrify/report/page/page.js").read_text()
    states = re.search(r"const STATES = \{(.*)\};", script)
    assert states
    found = dict(re.findall(r'(\w+): "(\w+)"', states[1]))
    assert tuple(found) == ARRAY_STATES
    assert set(found.values()) <= {"work", *LIMITS}


# The page ----------------------------------------------------------------------------------------
def test_a_browser_draws_the_page(tmp_path, monkeypatch, capsys, program, experts):
    monkeypatch.chdir(tmp_path)
    experts.save("a.vfy")
    program.save("b.vfy")
    vitrify(capsys, "report", "a.vfy", "-o", "page.html", "--compare", "b.vfy")
    source = Path("page.html").read_text()
    # Nothing comes from elsewhere.
    assert re.findall(r"""(?:src|href)\s*=\s*["']?(?!#)[^"'\s>]""", source) == []
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", source)
    found = document(tmp_path / "page.html")
    assert 'data-drawn="yes"' in found
    assert set(re.findall(r'<section id="([^"]*)"', found)) == (
        SECTIONS | {"routing-of-experts", "comparison"}
    )
    shown = html.unescape(re.sub(r"<[^>]*>", " ", found.split('<script type="application')[0]))
    assert f"{estimate(experts).cycles:,}" in shown
    assert all(re.sub(r"\[\d+\]$", "", x.name) in shown for x in experts.layers)
    assert "NaN" not in shown
    assert "undefined" not in shown
    assert not re.search(r'="[^"]*(?:NaN|undefined|Infinity)', found.split("<script")[0])
    light, dark = (
        np.asarray(Image.open(screenshot(tmp_path / "page.html", 1366, 900, dark=dark)))
        for dark in (False, True)
    )
    assert light.shape[:2] == (900, 1366)
    assert light[5, 5, :3].min() > 230
    assert dark[5, 5, :3].max() < 40
    # Both show something: text and figures, not one colour.
    for image in (light, dark):
        assert len(np.unique(image[::4, ::4, :3].reshape(-1, 3), axis=0)) > 30


def test_names_are_no_markup(tmp_path, program):
    evil = "</script><script>document.documentElement.dataset.evil='yes'</script><img src=x>"
    layers = tuple(
        dataclasses.replace(layer, name=f"{evil}{layer.name}") for layer in program.layers
    )
    changed = dataclasses.replace(program, model=evil, layers=layers)
    from vitrify.report.page import render

    page = tmp_path / "page.html"
    page.write_text(render(figures(estimate(changed, trace=True))))
    assert evil not in page.read_text()
    found = document(page)
    assert 'data-drawn="yes"' in found
    assert "data-evil" not in found
    assert "<img" not in found


def test_json_and_comparison_with_it(tmp_path, monkeypatch, capsys, program):
    monkeypatch.chdir(tmp_path)
    program.save("m.vfy")
    text = vitrify(capsys, "report", "m.vfy", "--json")
    data = json.loads(text)
    assert data == json.loads(json.dumps(figures(estimate(program, trace=True))))
    Path("before.json").write_text(text)
    Path("slow.yaml").write_text("base: nano\ndram: {latency: 500, outstanding: 1}\n")
    said = vitrify(
        capsys, "report", "m.vfy", "--arch", "slow.yaml", "-o", "p.html", "--compare", "before.json"
    )
    assert "p.html: synthetic-0 on " in said
    held = re.search(r'id="figures">(.*?)</script>', Path("p.html").read_text())
    assert held
    both = json.loads(held[1])
    assert both["compare"] == data
    assert both["figures"]["summary"]["cycles"] > data["summary"]["cycles"]


def test_quantisation_of_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = ROOT / "tests/data/timm_ts17.onnx"
    from vitrify.cli.models import image_input

    rng = np.random.default_rng(1)
    np.save("calib.npy", rng.normal(size=(8, *image_input(model)[1])).astype(np.float32))
    data = json.loads(vitrify(
        capsys, "report", model, "--arch", "nano", "--calib", "calib.npy", "--json"
    ))
    found = {one["name"]: one for one in data["quantisation"]}
    assert any("fc1" in name for name in found)
    for one in found.values():
        assert one["low"] < one["high"]
        assert one["peak"] == max(-one["low"], one["high"])
        assert 0 <= one["clipped"] < 0.02
        assert one["bits"] in (8, 16)
        assert one["sqnr"] is None or one["sqnr"] > 10
    noise = json.loads(vitrify(capsys, "report", model, "--arch", "nano", "--json"))
    assert noise["quantisation"] is None


@pytest.mark.parametrize(("arguments", "message"), [
    (("m.vfy",), "say where the page goes with -o REPORT.html"),
    (("m.vfy", "-o", "gone/p.html"), "directory 'gone' does not exist"),
    (("m.vfy", "-o", "m.vfy"), "it is an input"),
    (("m.vfy", "-o", "p.html", "--compare", "gone.json"), "there is no file 'gone.json'"),
    (("m.vfy", "-o", "p.html", "--compare", "text.json"), "'text.json' is no JSON"),
    (("m.vfy", "-o", "p.html", "--compare", "old.json"), "of this version (form 0, not 1)"),
    (("m.vfy", "-o", "p.html", "--compare", "list.json"), "no report of this version"),
    (("m.vfy", "-o", "p.html", "--compare", "m.onnx"), "'m.onnx' is a model"),
], ids=str)
def test_errors(tmp_path, monkeypatch, capsys, program, arguments, message):
    monkeypatch.chdir(tmp_path)
    program.save("m.vfy")
    Path("m.onnx").write_bytes((ROOT / "tests/data/timm_ts17.onnx").read_bytes())
    for name, text in {"text": "{", "old": '{"form": 0}', "list": "[]"}.items():
        Path(f"{name}.json").write_text(text)
    assert message in vitrify(capsys, "report", *arguments, code=2)
    assert not Path("p.html").exists()


def test_the_extra_is_named(tmp_path, monkeypatch, capsys, program):
    program.save(tmp_path / "m.vfy")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "vitrify.report.page", raising=False)
    assert main(["report", str(tmp_path / "m.vfy"), "-o", str(tmp_path / "p.html")]) == 2
    assert "pip install 'vitrify[cli,report]'" in capsys.readouterr().err
