"""Predicted cycles of programs with routed heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import vitrify
from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_heads import CASES, NANO
from tests.unit.estimate.test_experts import agree, images
from vitrify.compiler import compile_graph


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[0] is NANO])
def test_cycles_of_a_replayed_routing(name):
    arch, shape, batch, tasks = CASES[name]
    graph = vision_transformer(seed=3, **{"heads": 4} | shape)
    agree(compile_graph(graph, arch, batch=batch), tasks)


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    graph = vision_transformer(routed=Mixture(experts=2), balanced=True, heads=4)
    program = compile_graph(graph, NANO)
    program.save("m.vfy")
    np.save("x.npy", images(program, 3))
    assert "blocks.1.attention" in vitrify(
        capsys, "routing", "m.vfy", "--data", "x.npy", "-o", "r.json"
    )
    counts = json.loads(Path("r.json").read_text())["replay"]["counts"]
    assert [sum(part) for part in counts] == [34] * 6
    found = json.loads(vitrify(capsys, "estimate", "m.vfy", "--routing", "r.json", "--json"))
    assert found["routing"]["counts"] == counts
    assert found["cycles"] > 0
    assert program.model in vitrify(capsys, "info", "m.vfy")
