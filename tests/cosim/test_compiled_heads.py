"""Compiled mixtures of heads on the simulated core: every tensor, every kind of routing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cosim.test_compiled_experts import TALL, noise, run
from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_heads import CASES, NANO
from tests.unit.quant.test_experts import DATA, exported
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.runtime import InferenceSession

pytestmark = pytest.mark.slow
ON_NANO = [name for name, case in CASES.items() if case[0] is NANO]


@pytest.mark.parametrize("name", ON_NANO)
def test_nano(name):
    _, shape, batch, tasks = CASES[name]
    graph = vision_transformer(seed=3, **{"heads": 4} | shape)
    program = compile_graph(graph, NANO, batch=batch)
    # Two jobs, so that nothing of the first may matter to the second.
    again = None if tasks is None else 2 * tasks
    out, statistics = run(program, noise(program, 2 * batch), again, stall=0.2, seed=len(name))
    with InferenceSession(program, "golden") as golden:
        feed = {program.input.name: noise(program, 2 * batch)}
        if again is not None:
            feed["task"] = np.array(again)
        assert (golden.run(None, feed)[0] == out).all()
        assert statistics.macs == golden.statistics.macs


@pytest.mark.parametrize("batch", [1, 2])
def test_another_core(batch):
    routed = Mixture(experts=5, choices=3)
    graph = vision_transformer(routed=routed, balanced=True, heads=7, dim=28)
    program = compile_graph(graph, TALL, batch=batch)
    run(program, noise(program, 2 * batch))


@pytest.mark.parametrize("path", sorted(DATA.glob("moh_*.onnx")), ids=lambda path: path.stem)
def test_exported(path):
    model, images = exported(path)
    program = compile_graph(quantise(model, images, arch=NANO), NANO)
    run(program, images[:2], stall=0.1)
