"""Whole small cores on programs written by hand: golden's results, full rate, reset."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.support.mixtures import CASES, mixture
from vitrify.arch.isa import Stationary
from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.wrapper import Wrapper
from vitrify.selftest.patterns import access_patterns
from vitrify.selftest.programs import every_mechanism, full_rate
from vitrify.selftest.routed_heads import routed_heads

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
#: C > K, E = K: groups of columns, wide lanes, one beat a word; no router.
TALL = dataclasses.replace(NANO, name="tall", depth=4, width=8, lanes=4, bus_bytes=4, experts=0)
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("arch", [NANO, TALL], ids=lambda arch: arch.name)
def test_core(arch, tmp_path):
    rates = {
        f"{source.name} {rows} rows": full_rate(arch, 1, rows=rows, stationary=source)
        for source in Stationary for rows in (16, arch.max_rows)
        if source != Stationary.STORED or arch.stored_weights
    }
    # All cases run in test_experts.
    mixtures = {
        name: mixture(arch, 1, CASES[name]).job
        for name in ("two_images_of_two_tasks", "four_choices", "gaps", "in_chunks")
    } | {"routed_heads": routed_heads(arch, 1)} if arch.experts else {}
    patterns = {f"patterns {seed}": access_patterns(arch, seed) for seed in (1, 2, 3)}
    programs = mixtures | patterns
    jobs = {"every_mechanism": every_mechanism(arch, 1)} | rates | programs
    files = {name: job.save(tmp_path / f"{i}.npz") for i, (name, job) in enumerate(jobs.items())}
    simulate(Wrapper(arch, trace=True), f"core-{arch.name}", BENCHES / "core_bench.py", arch=arch,
             options={"jobs": files, "rates": list(rates), "programs": list(programs)})
