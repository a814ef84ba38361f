"""What notebooks show."""

from __future__ import annotations

import dataclasses

import numpy as np

from tests.support.synthetic import vision_transformer
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.runtime import InferenceSession


def test_tables_of_estimates_and_statistics():
    program = compile_graph(vision_transformer(), preset("nano"))
    program = dataclasses.replace(program, model="<b>a & b</b>")
    result = estimate(program)
    shown = result._repr_html_()
    assert f"{result.cycles:,}" in shown
    assert "&lt;b&gt;a &amp; b&lt;/b&gt; on nano, estimate" in shown
    assert "<b>" not in shown
    with InferenceSession(program) as session:
        session.run(None, {program.input.name: np.zeros((2, *program.input.shape), np.float32)})
        assert session.statistics is not None
        shown = session.statistics._repr_html_()
    # The golden machine has no clock.
    assert "golden" in shown
    assert "cycles" not in shown
    assert ">2</td>" in shown
