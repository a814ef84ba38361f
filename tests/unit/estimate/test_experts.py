"""Predicted cycles of programs with experts, and the routing that they depend on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import vitrify
from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_experts import CASES, NANO, ROOMY
from vitrify.arch.dram import Dram
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.estimate.core import timeline
from vitrify.estimate.recorder import Observer
from vitrify.runtime import InferenceSession
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.routing import expert_bytes, replay, routes, typical, uniform

TALL = dataclasses.replace(
    NANO, name="tall_experts", depth=4, width=8, lanes=4, bus_bytes=4, experts=7, bank_words=512,
)
#: The bar of the estimator, as for dense programs.
TOTAL = 0.02


def images(program, count):
    return np.random.default_rng(5).normal(size=(count, *program.input.shape)).astype(np.float32)


def routing_of(program, pictures, tasks=None):
    regions, words, _ = as_jobs(program, pictures, {} if tasks is None else {"task": tasks})
    return replay(program, regions, words)


def agree(program, tasks=None):
    pictures = images(program, program.batch)
    routing, = routing_of(program, pictures, tasks)
    feed = {program.input.name: pictures} | ({} if tasks is None else {"task": np.array(tasks)})
    with InferenceSession(program, "rtl") as session:
        session.run(None, feed)
        truth = session.statistics.to_dict()
    found = estimate(program, routing=routing).to_dict()
    assert abs(found["cycles"] / truth["cycles"] - 1) < TOTAL
    for name in ("macs", "dram_read_bytes", "dram_write_bytes", "roofline_cycles"):
        assert found[name] == truth[name]
    for mine, real in zip(found["layers"], truth["layers"], strict=True):
        assert mine["dram_read_bytes"] == real["dram_read_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[0] is NANO])
def test_cycles_of_a_replayed_routing(name):
    arch, shape, batch, tasks = CASES[name]
    agree(compile_graph(vision_transformer(seed=3, **shape), arch, batch=batch), tasks)


@pytest.mark.slow
@pytest.mark.parametrize("dram", [NANO.dram, Dram(latency=60, outstanding=2)])
def test_another_core(dram):
    mixture = Mixture(experts=7, shared=12, choices=3)
    arch = dataclasses.replace(TALL, dram=dram)
    agree(compile_graph(vision_transformer(mixture=mixture, blocks=4), arch))


# Without a simulator -----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def program():
    """Experts that are loaded ahead, by a bus that is quick enough for it."""
    graph = vision_transformer(mixture=Mixture(tasks=2), blocks=4)
    return compile_graph(graph, dataclasses.replace(NANO, bus_bytes=NANO.depth))


def test_without_a_routing_all_experts_are_alike(program):
    found = estimate(program)
    assert found.routing == uniform(program)
    assert all(sum(counts) == 34 for counts in found.routing.counts)
    assert found.cost.dram_read_bytes == program.dram_bytes - found.cost.dram_write_bytes


def test_a_dense_program_has_no_routing():
    dense = estimate(compile_graph(vision_transformer(), NANO))
    assert dense.routing is None
    assert dense.to_dict()["routing"] is None


def test_routes_are_under_way_one_at_a_time():
    """The dispatcher has room for one, so that what is behind the next waits, too."""
    part_by_part = compile_graph(vision_transformer(mixture=Mixture(), blocks=4), ROOMY, batch=2)
    spans = []

    class Spans(Observer):
        def add(self, engine, state, begin, end, cause="", *, matmul=None):
            if (engine, state) in (("router", "ROUTE"), ("instructions", "ROUTE")):
                spans.append((engine, begin, end))

    timeline(part_by_part, observer=Spans())
    routed = [span[1:] for span in spans if span[0] == "router"]
    issued = [span[2] for span in spans if span[0] == "instructions"]
    assert len(routed) == len(issued) == 6
    for (_, end), then in zip(routed, issued[1:], strict=False):
        assert end <= then


def test_idle_experts_take_no_bytes(program):
    layers = routes(program)
    few = uniform(program)
    few = dataclasses.replace(few, counts=tuple((17, 17, *[0] * 6) for _ in layers))
    some, all_alike = estimate(program, routing=few), estimate(program)
    saved = expert_bytes(all_alike.routing, layers) - expert_bytes(few, layers)
    needed = [e.cost.dram_read_bytes - e.cost.wasted_bytes for e in (all_alike, some)]
    assert needed[0] - needed[1] == saved > 0
    assert all_alike.cost.wasted_bytes == 0
    # Nobody had asked for them when they were loaded.
    assert some.cost.wasted_bytes > 0
    assert some.cycles < all_alike.cycles
    assert {layer.name for layer in some.layers} == {layer.name for layer in all_alike.layers}


def test_replayed_rows_are_those_of_the_gate(program):
    found = routing_of(program, images(program, 3), [0, 1, 0])
    assert len(found) == 3
    assert all(sum(counts) == 34 for routing in found for counts in routing.counts)
    assert [r.name for r in routes(program)] == ["blocks.1.moe", "blocks.3.moe"]
    assert typical(found, routes(program)) in found


def test_command_line(program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program.save("m.vfy")
    np.save("x.npy", images(program, 3))
    command = ("routing", "m.vfy", "--data", "x.npy")
    data = json.loads(vitrify(capsys, *command, "-o", "r.json", "--picture", "r.png", "--json"))
    assert json.loads(Path("r.json").read_text()) == data
    assert Path("r.png").read_bytes().startswith(b"\x89PNG")
    assert list(data["layers"][0]["tasks"]) == ["task 0", "task 1"]
    one = data["layers"][0]["tasks"]["task 1"]
    assert sum(one["tokens"]) == 3 * 34
    assert 0 < one["bytes"] <= data["layers"][0]["all_bytes"]
    assert data["expert_bytes"] < data["all_expert_bytes"]
    only = json.loads(vitrify(capsys, *command, "--task", "1", "--limit", "2", "--json"))
    assert list(only["layers"][0]["tasks"]) == ["task 1"]
    assert only["images"] == 2
    assert "of the experts' weights are fetched" in vitrify(capsys, *command)

    replayed = json.loads(vitrify(capsys, "estimate", "m.vfy", "--routing", "r.json", "--json"))
    assert replayed["routing"]["counts"] == data["replay"]["counts"]
    real = json.loads(
        vitrify(capsys, "estimate", "m.vfy", "--input", "x.npy", "--task", "1", "--json")
    )
    assert real["routing"]["source"] == "replayed"
    assert "all alike; --input or --routing" in vitrify(capsys, "estimate", "m.vfy")


def test_errors_of_the_command_line(program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program.save("m.vfy")
    compile_graph(vision_transformer(), NANO).save("dense.vfy")
    np.save("x.npy", images(program, 1))
    Path("bad.json").write_text("{}")
    Path("other.json").write_text(json.dumps({"replay": {"counts": [[34]]}}))
    for arguments, message in (
        (("routing", "dense.vfy", "--data", "x.npy"), "has no experts"),
        (("routing", "m.vfy", "--data", "x.npy", "--limit", "0"), "--limit must be at least 1"),
        (("estimate", "m.vfy", "--routing", "bad.json"), "'bad.json' is no routing"),
        (("estimate", "m.vfy", "--routing", "other.json"), "routes other layers than those of"),
        (("estimate", "m.vfy", "--input", "x.npy"), "input 'task' is missing"),
    ):
        assert message in vitrify(capsys, *arguments, code=2)
