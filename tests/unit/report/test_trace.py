"""Traces: every cycle of every engine once, as the counters have it, in the form of viewers."""

from __future__ import annotations

import dataclasses
import gzip
import json
from itertools import pairwise
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.support.browser import document
from tests.support.command import vitrify
from tests.support.perfetto import viewer
from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.ops.linear.integer import QLinear
from vitrify.report import chrome_trace
from vitrify.runtime import InferenceSession
from vitrify.runtime.activity import ARRAY_STATES, BUCKET, ENGINES, ROW, Activity
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.routing import replay

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "data" / "trace_event.schema.json").read_text()
)
SHAPES = {
    "plain": {}, "blocks of rows": {"seed": 4, "image": (1, 12, 12), "hidden": 48},
    "experts": {"mixture": Mixture(experts=4, choices=2)},
}


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def program(request):
    arch = preset("nano")
    if "mixture" in request.param:
        arch = dataclasses.replace(arch, experts=4)
    return compile_graph(vision_transformer(**request.param), arch)


def apart(activity: Activity) -> None:
    """No two spans of an engine overlap, and none is empty or outside the run."""
    for engine in ENGINES:
        spans = activity.of(engine)
        assert all(0 <= span.begin < span.end for span in spans)
        assert all(one.end <= other.begin for one, other in pairwise(spans)), engine
    assert activity.of("array")[-1].end == activity.cycles


def test_the_estimate_is_the_sum_of_its_trace(program):
    result = estimate(program, trace=True)
    activity = result.activity
    assert activity is not None
    apart(activity)
    array = activity.totals("array")
    assert sum(array.values()) == activity.cycles == result.cycles
    assert {name: array.get(name, 0) for name in result.stalls} == result.stalls
    assert array[ROW] == result.cycles - sum(result.stalls.values())
    assert activity.traffic.sum() == result.cost.dram_read_bytes
    ran = {span.matmul for span in activity.of("array") if span.state == ROW}
    assert ran == {span.matmul for span in activity.of("epilogue")}
    assert ran <= set(range(len(program.layers)))
    # Watching changes nothing.
    assert estimate(program).to_dict() == result.to_dict()


def test_words_of_nibbles_come_twice_without_pairs():
    graph = vision_transformer()
    graph.ops[:] = [
        dataclasses.replace(op, weight=np.clip(op.weight, -8, 7)) if isinstance(op, QLinear) else op
        for op in graph.ops
    ]
    narrow = dataclasses.replace(preset("nano"), stored_weights=False, trellis=False)
    found, wide = (
        estimate(compile_graph(graph, arch), trace=True)
        for arch in (narrow, dataclasses.replace(narrow, nibbles=False))
    )
    assert found.cost.dram_read_bytes < wide.cost.dram_read_bytes
    apart(found.activity)
    assert found.activity.totals("loader")["words"] == wide.activity.totals("loader")["words"]


def test_perfetto_shows_every_engine_of_both(tmp_path):
    program = compile_graph(vision_transformer(), preset("nano"))
    activity = estimate(program, trace=True).activity
    assert activity is not None
    trace = chrome_trace(program, [activity, dataclasses.replace(activity, source="rtl")])
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(trace))
    busy = {event["tid"] for event in trace["traceEvents"] if event["ph"] == "X"}
    names = ["DRAM read GB/s"] + [
        f"{event['args']['name']} {event['tid']}" for event in trace["traceEvents"]
        if event["name"] == "thread_name" and event["tid"] in busy
    ]
    assert len(names) == 1 + 2 * 8  # layers, and every engine but the router
    with viewer(path, names) as address:
        found = document(path, address)
    assert [name for name in names if name not in found] == []
    # It says so where spans do not fit each other.
    assert "import error" not in found


def test_the_form_is_that_of_viewers(program):
    activity = estimate(program, trace=True).activity
    assert activity is not None
    trace = chrome_trace(program, [activity, activity])
    jsonschema.validate(trace, SCHEMA)
    events = trace["traceEvents"]
    assert {event["pid"] for event in events} == {1, 2}
    threads = {
        event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"
    }
    assert set(ENGINES) | {"layers"} == set(threads.values())
    # What Perfetto takes for a thread of its own.
    assert len(threads) == 2 * (1 + len(ENGINES))
    assert not {0, 1, 2} & threads.keys()
    spans = [event for event in events if event["ph"] == "X"]
    for thread, name in threads.items():
        mine = [event for event in spans if event["tid"] == thread]
        # In nanoseconds, as a viewer takes them.
        ends = [round(1e3 * event["ts"]) + round(1e3 * event["dur"]) for event in mine]
        begins = [round(1e3 * event["ts"]) for event in mine]
        assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False)), name
        if name == "array":
            assert sum(event["args"]["cycles"] for event in mine) == activity.cycles
    rates = [event for event in events if event["ph"] == "C" and event["pid"] == 1]
    assert rates[-1]["args"] == {"GB/s": 0}
    assert any(event["args"]["GB/s"] > 0 for event in rates)
    waits = [event for event in spans if event["cat"] == "wait"]
    assert waits
    assert all(event["args"]["waits_for"] for event in waits)
    rows = [event for event in spans if "k_tile" in event["args"] and event["cat"] == "work"]
    assert {event["name"] for event in rows} >= {layer.name for layer in program.layers[:1]}


@pytest.mark.parametrize("wrong", [
    {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "name": "a", "cat": "b", "args": {}},
    {"ph": "X", "pid": 1, "tid": 1, "ts": -1, "dur": 1, "name": "a", "cat": "b", "args": {}},
    {"ph": "C", "pid": 1, "tid": 1, "ts": 0, "name": "a", "args": {"x": "1"}},
    {"ph": "M", "pid": 1, "tid": 1, "ts": 0, "name": "thread_name", "args": {}},
    {"ph": "?", "pid": 1, "tid": 1, "ts": 0, "name": "a", "args": {}},
])
def test_the_schema_refuses(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"traceEvents": [wrong]}, SCHEMA)


# On the simulated core ---------------------------------------------------------------------------
@pytest.mark.slow
def test_the_simulated_core_is_the_sum_of_its_trace(tmp_path, capsys):
    program = compile_graph(vision_transformer(), preset("nano"))
    program.save(tmp_path / "m.vfy")
    images = np.random.default_rng(0).normal(size=(2, *program.input.shape)).astype(np.float32)
    with InferenceSession(program, "rtl", activity=True) as session:
        session.run(None, {program.input.name: images})
        statistics = session.statistics
    assert statistics is not None
    activity, counters = statistics.activity, statistics.counters
    assert activity is not None
    apart(activity)
    array = activity.totals("array")
    # Between two jobs there is a cycle in which none runs.
    assert sum(array.values()) == counters["CYCLES"] == activity.cycles - 1
    events = ("ARRAY_BUSY", *(f"STALL_{name.upper()}" for name in ARRAY_STATES[1:]))
    assert [array.get(name, 0) for name in ARRAY_STATES] == [counters[name] for name in events]
    assert sum(activity.totals("epilogue").values()) == counters["EPILOGUE_BUSY"]
    assert activity.totals("loader")["words"] == counters["LOADER_BUSY"]
    assert sum(activity.totals("bus").values()) == counters["DRAM_READ_BEATS"]
    assert activity.traffic.sum() == statistics.dram_read_bytes
    assert activity.traffic.max() <= BUCKET * program.arch.bus_bytes
    assert sum(activity.totals("instructions").values()) == counters["INSTRUCTIONS"]
    # The estimator says the same of the bus, client by client, and of the epilogue.
    guess = estimate(program, trace=True).activity
    assert guess is not None
    for engine in ("bus", "epilogue"):
        assert {name: 2 * cycles for name, cycles in guess.totals(engine).items()} == (
            activity.totals(engine)
        )
    assert [span.matmul for span in activity.of("array") if span.state == ROW][-1] == (
        len(program.layers) - 1
    )
    # Both commands.
    np.save(tmp_path / "x.npy", images[0])
    both, one = tmp_path / "both.json", tmp_path / "one.json.gz"
    vitrify(capsys, "trace", tmp_path / "m.vfy", "-o", both, "--backend", "rtl")
    vitrify(capsys, "run", tmp_path / "m.vfy", "--input", tmp_path / "x.npy", "--backend", "rtl",
            "--perfetto", one)
    found = json.loads(both.read_text())
    jsonschema.validate(found, SCHEMA)
    alone = json.loads(gzip.decompress(one.read_bytes()))
    jsonschema.validate(alone, SCHEMA)
    assert list(found["otherData"]["cycles"]) == ["estimate", "rtl"]
    assert alone["otherData"]["cycles"] == {"rtl": found["otherData"]["cycles"]["rtl"]}


@pytest.mark.slow
def test_experts_that_are_left_out_have_no_spans():
    mixture = Mixture(experts=8, choices=2, bias=(0, 200, -9000, 100, -9000, 50, 0, -9000))
    program = compile_graph(vision_transformer(mixture=mixture), preset("nano"))
    images = np.random.default_rng(0).normal(size=(1, *program.input.shape)).astype(np.float32)
    with InferenceSession(program, "rtl", activity=True) as session:
        session.run(None, {program.input.name: images})
        statistics = session.statistics
    assert statistics is not None
    assert statistics.activity is not None
    regions, words, _ = as_jobs(program, images, {})
    guess = estimate(program, routing=replay(program, regions, words)[0], trace=True).activity
    assert guess is not None
    both = (statistics.activity, guess)
    for activity in both:
        apart(activity)
        assert activity.totals("router")["ROUTE"] > 0
    rows, results = (
        [list(dict.fromkeys(span.matmul for span in activity.of(engine) if span.state == state))
         for activity in both]
        for engine, state in (("array", ROW), ("epilogue", "results"))
    )
    assert rows[0] == rows[1] == results[0] == results[1]
    assert 0 < len(rows[0]) < len(program.layers)


@pytest.mark.parametrize(("arguments", "message"), [
    (("trace", "m.vfy"), "the following arguments are required: -o/--output"),
    (("trace", "m.vfy", "-o", "t.json", "--backend", "fpga"), "invalid choice: 'fpga'"),
    (("trace", "m.vfy", "-o", "m.vfy"), "it is an input"),
    (("trace", "gone.vfy", "-o", "t.json"), "no file 'gone.vfy'"),
    (("run", "m.vfy", "--input", "x.npy", "--perfetto", "t.json"), "--perfetto belongs to"),
], ids=str)
def test_errors(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    compile_graph(vision_transformer(), preset("nano")).save("m.vfy")
    assert message in vitrify(capsys, *arguments, code=2)
    assert not Path("t.json").exists()
