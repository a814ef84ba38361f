"""The search over architectures: nothing is lost by what it leaves out, and it goes on."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import onnx
import pytest

from tests.support.command import vitrify
from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch.boards import BOARDS
from vitrify.arch.errors import InputError
from vitrify.arch.estimate import fits
from vitrify.arch.load import load
from vitrify.arch.presets import PRESETS, preset
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.explore import Design, Space, Study, explore, front, parse_budget, parse_sweep
from vitrify.explore.plot import draw
from vitrify.explore.search import bound, measure
from vitrify.explore.space import share_of

ROOT = Path(__file__).parents[2]
SMALL = {
    "depth": (8, 16), "width": (8, 16), "lanes": (1, 8), "max_rows": (64,), "banks": (6,),
    # Too few, enough, and far too many: what is large without being fast.
    "bank_words": (32, 1024, 16384), "ports": (1,),
}
MODEL = {"image": (3, 16, 16), "patch": 4, "dim": 64, "heads": 2, "hidden": 256, "blocks": 1,
         "pooled": True}


@pytest.fixture(scope="module")
def graph():
    return vision_transformer(**MODEL)


@pytest.fixture(scope="module")
def archs():
    return Space.of("kv260", sweep=SMALL).designs({}, 100)


def decide(archs, graph, path=None, **options):
    with Study(path, {"m": "1"}) as study:
        return explore(archs, {"m": lambda _: graph}, study, **{"jobs": 1, **options})


def test_the_front_is_that_of_all_designs(archs, graph):
    found = decide(archs, graph)
    assert {design.status for design in found} == {"estimated", "dominated", "refused"}
    assert [design.arch for design in found] == archs
    for design in found:
        assert (design.to_dict()["milliseconds"] is None) == (design.status == "refused")
    everything = [
        Design(arch, max(share_of(arch).values()), *measure({"m": graph}, arch)) for arch in archs
    ]
    assert front(found) == front(everything)
    for mine, truth in zip(found, everything, strict=True):
        if mine.status == "dominated":
            assert truth.status == "refused" or mine.cycles["m"] <= truth.cycles["m"]
        else:
            assert mine == truth
    best = front(found)
    assert len(best) > 1
    times, shares = ([getattr(d, name) for d in best] for name in ("milliseconds", "share"))
    assert times == sorted(times)
    assert shares == sorted(shares, reverse=True)
    assert any("m: " in design.note for design in found if design.status == "refused")
    # With a tolerance there are fewer estimates, and something near of every design of the front.
    rough = decide(archs, graph, tolerance=0.5)
    assert sum(d.status == "estimated" for d in rough) < sum(d.status == "estimated" for d in found)
    for design in best:
        assert any(
            near.share <= design.share and near.milliseconds <= 1.5 * design.milliseconds
            for near in front(rough)
        )


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("shape", [
    MODEL, {"mixture": Mixture(experts=4, choices=2)}, {"routed": Mixture(experts=2, choices=1),
                                                       "heads": 4},
], ids=["plain", "experts", "heads"])
def test_no_design_is_faster_than_its_bound(name, shape):
    arch, graph = preset(name), vision_transformer(**shape)
    if "mixture" in shape or "routed" in shape:
        arch = dataclasses.replace(arch, experts=max(4, arch.experts))
    program = compile_graph(graph, arch)
    least = bound(graph, arch)
    assert 0 < least <= estimate(program).cycles


def test_a_stopped_study_goes_on(tmp_path, archs, graph, monkeypatch):
    path = tmp_path / "s.sqlite"
    whole = decide(archs, graph)
    measured: list[str] = []

    def counted(graphs, arch):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(arch.name)
        return measure(graphs, arch)

    monkeypatch.setattr("vitrify.explore.search.measure", counted)
    with pytest.raises(KeyboardInterrupt):
        decide(archs, graph, path)
    first, measured[:] = list(measured), []
    monkeypatch.setattr("vitrify.explore.search.measure", lambda graphs, arch: (
        measured.append(arch.name) or measure(graphs, arch)
    ))
    assert front(decide(archs, graph, path)) == front(whole)
    assert len(first) == 3
    assert not set(first) & set(measured)
    measured.clear()
    assert front(decide(archs, graph, path)) == front(whole)
    assert not measured
    with pytest.raises(InputError, match=r"is of something else \(another m\)"):
        Study(path, {"m": "2"})
    (tmp_path / "text").write_text("no database, but long enough to be looked at" * 99)
    with pytest.raises(InputError, match="is no study"):
        Study(tmp_path / "text", {})


@pytest.mark.slow
def test_processes_find_the_same(archs, graph):
    assert front(decide(archs[:6], graph, jobs=2)) == front(decide(archs[:6], graph))


@pytest.mark.parametrize("part", [name for name in BOARDS if fits(PRESETS[name])])
def test_every_board_has_designs_that_fit(part):
    place = BOARDS[part]
    found = Space.of(part).designs({"lut": 0.6}, 20)
    assert len(found) == 20
    for arch in found:
        assert arch.part == place.part
        assert arch.clock_mhz == place.clock_mhz
        place.require(arch)
        shares = share_of(arch)
        assert shares["lut"] <= 0.6
        assert max(shares.values()) <= 1
    if sum(one.part == place.part for one in BOARDS.values()) == 1:
        assert found == Space.of(place.part.name).designs({"lut": 0.6}, 20)
    assert found != Space.of(part).designs({"lut": 0.6}, 20, seed=1)


def test_the_core_that_is_varied_is_among_them():
    space = Space.of("kv260")
    first, *others = space.designs({}, 4, seed=3)
    own = preset("kv260")
    assert all(getattr(first, name) == getattr(own, name) for name in space.axes)
    assert len(others) == 3
    assert first not in others
    tight = space.designs({"uram": 0.9}, 4, seed=3)
    assert not any(arch.token_bytes == own.token_bytes and arch.macs == own.macs for arch in tight)


def test_options():
    assert parse_budget(["lut=0.5,dsp=90%", "uram=1"]) == {"lut": 0.5, "dsp": 0.9, "uram": 1.0}
    assert parse_sweep(["depth=16,32", "nibbles=true,false"]) == {
        "depth": (16, 32), "nibbles": (True, False),
    }


def test_designs_have_names_of_their_own():
    once = {name: values[-1:] for name, values in SMALL.items()}
    more = {"weight_fifo_words": (128, 512), "nibbles": (False, True), "outstanding": (8,)}
    found = Space.of("kv260", sweep=once | more).designs({}, 100)
    assert {arch.name.removeprefix("k16c16e8r64b6x16384p1") for arch in found} == (
        {"-128-0", "-128-1", "-512-0", "-512-1"}
    )


# The command -------------------------------------------------------------------------------------
SWEEP = (
    "--sweep", "depth=4,8", "--sweep", "width=8", "--sweep", "lanes=4", "--sweep", "max_rows=64",
    "--sweep", "banks=6", "--sweep", "bank_words=1024", "--jobs", "1",
)


def test_the_command_ends_in_a_core(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes((ROOT / "tests/data/timm_ts17.onnx").read_bytes())
    said = vitrify(
        capsys, "explore", "m.onnx", "--part", "ulx3s", *SWEEP, "--study", "s.sqlite",
        "-o", "best.yaml", "--plot", "front.svg",
    )
    assert "best.yaml: k4c8e4" in said
    assert Path("front.svg").read_text().startswith("<?xml")
    best = load("best.yaml")
    assert (best.depth, best.width, best.lanes, best.name) == (4, 8, 4, "best")
    text = vitrify(capsys, "explore", "m.onnx", "--part", "ulx3s", *SWEEP, "--study", "s.sqlite",
                   "--json")
    other = vitrify(capsys, "explore", "m.onnx", "--part", "ulx3s", *SWEEP, "--study", "s.sqlite",
                    "--preprocess", "augreg", code=2)
    assert "is of something else (another preprocess)" in other
    data = json.loads(text)
    found = {one["name"]: one for one in data["designs"]}
    first = found[data["front"][0]]
    same = json.loads(vitrify(capsys, "estimate", "m.onnx", "--arch", "best.yaml", "--json"))
    assert first["cycles"] == {"m": same["cycles"]}
    assert first["milliseconds"] == pytest.approx(same["milliseconds"])
    # What does not vary comes from a file that is no preset.
    Path("mine.yaml").write_text("base: ulx3s\nindex_entries: 32\n")
    vitrify(capsys, "explore", "m.onnx", "--part", "ulx3s", *SWEEP, "--base", "mine.yaml",
            "-o", "other.yaml")
    assert load("other.yaml") == dataclasses.replace(best, name="other", index_entries=32)


def test_the_plot_has_plain_numbers_and_no_empty_legends():
    designs = [Design(preset("ulx3s"), 0.1 * i, "estimated", {"m": 40_000 - i}) for i in (1, 2)]
    text = draw(designs, BOARDS["ulx3s"], "svg").decode()
    written = re.findall(r"<!-- (.*) -->", text)
    assert "estimate" in written
    assert "left out: at least" not in written
    assert not [words for words in written if "times" in words]


def test_a_study_is_of_one_model_however_it_is_called(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    again = ("explore", "preprocess.onnx", "--part", "ulx3s", *SWEEP, "--limit", "1", "--study",
             "s.sqlite")
    model = onnx.load(ROOT / "tests/data/timm_ts17.onnx")
    onnx.save(model, "preprocess.onnx")
    vitrify(capsys, *again)
    model.doc_string = "another"
    onnx.save(model, "preprocess.onnx")
    said = vitrify(capsys, *again, code=2)
    assert "is of something else (another model preprocess)" in said


@pytest.mark.parametrize(("arguments", "message"), [
    (("gone.onnx", "--part", "kv260"), "no model 'gone.onnx'"),
    (("m.onnx", "--part", "virtex"), "--part 'virtex': the boards and their parts are"),
    (("m.onnx", "--part", "LFE5U-45F"),
     "--part 'LFE5U-45F': colorlight-i9 and schoko have it; name the board"),
    (("m.onnx", "--part", "ulx3s", "--budget", "slices=1"), "the resources are lut, ff"),
    (("m.onnx", "--part", "ulx3s", "--budget", "lut=2"), "--budget lut=2: a share of the part"),
    (("m.onnx", "--part", "ulx3s", "--sweep", "height=1"), "--sweep height=1: the settings are"),
    (("m.onnx", "--part", "ulx3s", "--sweep", "depth=big"), "values of depth are 4 … 128"),
    (("m.onnx", "--part", "ulx3s", "--sweep", "nibbles=2"), "values of nibbles are true, false"),
    (("m.onnx", "--part", "ulx3s", "--sweep", "depth=8,12"),
     "--sweep depth=8,12: values of depth are 4 … 128, a power of two, as depth=4,128"),
    (("m.onnx", "--part", "ulx3s", "--sweep", "requant_bits=18,200"), "values of requant_bits"),
    (("m.onnx", "--part", "ulx3s", "--sweep", "banks=7"), "values of banks are 2 … 64, even"),
    (("m.onnx", "--part", "ulx3s", "--tolerance", "2"), "--tolerance must be 0 to 1, not 2"),
    (("m.onnx", "--part", "ulx3s", "--limit", "0"), "--limit must be at least 1"),
    (("m.onnx", "--part", "ulx3s", "--sweep", "depth=128", "--sweep", "width=128"),
     "no core of these settings fits the budget on LFE5U-85F"),
    (("m.onnx", "--part", "ulx3s", "-o", "best.txt"), "ends in .yaml"),
    (("m.onnx", "--part", "ulx3s", "--plot", "front.bmp"), "ends in .svg or .png"),
    (("m.onnx", "--part", "ulx3s", "--study", "m.onnx"), "it is an input"),
    (("m.onnx", "m.onnx", "--part", "ulx3s"), "two models are called 'm'"),
], ids=str)
def test_errors(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes((ROOT / "tests/data/timm_ts17.onnx").read_bytes())
    assert message in vitrify(capsys, "explore", *arguments, code=2)
    assert sorted(path.name for path in Path().iterdir()) == ["m.onnx"]


def test_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes((ROOT / "tests/data/timm_ts17.onnx").read_bytes())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "vitrify.explore.plot", raising=False)
    said = vitrify(capsys, "explore", "m.onnx", "--part", "ulx3s", *SWEEP, "-o", "best.yaml",
                   "--plot", "front.svg", code=2)
    assert "pip install 'vitrify[cli,plot]'" in said
    assert not Path("best.yaml").exists()


def test_a_model_that_fits_nowhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes((ROOT / "tests/data/timm_ts17.onnx").read_bytes())
    said = vitrify(capsys, "explore", "m.onnx", "--part", "ulx3s", *SWEEP[:-4], "--sweep",
                   "bank_words=16", "--jobs", "1", "-o", "best.yaml", code=2)
    assert "no core of these settings takes the models: m: " in said
    assert not Path("best.yaml").exists()
