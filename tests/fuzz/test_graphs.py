"""A sample of the graph fuzzer; docs/verification.md has the counts of the long run."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.fuzz import graphs
from vitrify.arch.presets import preset

SEED = 2026


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_programs_on_golden_are_the_integer_graphs():
    results = {number: graphs.run(SEED, number) for number in range(24)}
    wrong = {n: r for n, r in results.items() if not r.startswith(("ok", "refused"))}
    assert wrong == {}, f"python -m tests.fuzz graphs --seed {SEED} --case N"
    assert list(results.values()).count("ok") >= 12


def test_programs_on_the_core_are_too():
    simulation = graphs.Simulation(preset("nano"))
    results = {number: simulation.run(SEED, number) for number in range(4)}
    assert all(result.startswith(("ok", "refused")) for result in results.values()), results
    assert "ok" in results.values()


def test_what_an_earlier_run_found():
    """Experts that are added to what a mixing layer made head by head."""
    graphs.compiled(2, 1375, preset("nano"))


def test_the_fuzzer_sees_what_is_wrong(monkeypatch):
    monkeypatch.setattr(
        "vitrify.codegen.builder.table_words", lambda table: (~table).view(np.uint8)
    )
    results = [graphs.run(SEED, number) for number in range(8)]
    assert any(result.startswith("WRONG VerificationError") for result in results), results
