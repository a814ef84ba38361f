"""A sample of the graph fuzzer; docs/verification.md has the counts of the long run."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

from tests.fuzz import graphs, networks
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.presets import preset
from vitrify.quant.wanted import NARROW, Weights

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


@pytest.mark.parametrize(("seed", "number", "arch"), [
    # experts that are added to what a mixing layer made head by head
    (2, 1375, preset("nano")),
    # several images whose pixels become one row, for results of few channels
    (43, 1047, None),
    # several images behind an op of constants
    (77, 133, None),
    # blocks of lines of a convolution that is added to what the layer in front of it reads
    (78, 350, None),
])
def test_what_earlier_runs_found(seed: int, number: int, arch: ArchConfig | None):
    graphs.compiled(seed, number, arch)


def test_an_image_is_read_again_once_all_are_there():
    """Images one by one in blocks of rows: others than their first reader found none."""
    core = networks.core(np.random.default_rng([42, 88]))
    with pytest.raises(CapacityError, match="bytes of token memory"):
        graphs.compiled(42, 88)
    case = graphs.compiled(42, 88, dataclasses.replace(core, banks=10))
    assert case.program.metadata["image_by_image"] == 6


def test_weights_of_four_bits_are_the_integer_graphs_too():
    results = {number: graphs.run(SEED, number, Weights(NARROW)) for number in range(12)}
    assert all(result.startswith(("ok", "refused")) for result in results.values()), results
    assert list(results.values()).count("ok") >= 6


def test_the_fuzzer_sees_what_is_wrong(monkeypatch):
    monkeypatch.setattr(
        "vitrify.codegen.builder.table_words", lambda table: (~table).view(np.uint8)
    )
    results = [graphs.run(SEED, number) for number in range(8)]
    assert any(result.startswith("WRONG VerificationError") for result in results), results
