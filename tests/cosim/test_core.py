"""Whole small cores on programs written by hand: golden's results, full rate, reset."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.support.mixtures import CASES, mixture
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Opcode, Region, Stationary
from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.wrapper import Wrapper
from vitrify.selftest.patterns import access_patterns
from vitrify.selftest.programs import Assembler, Job, every_mechanism
from vitrify.selftest.routed_heads import routed_heads

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
#: C > K, E = K: groups of columns, wide lanes, one beat a word; no router.  With weights of four
#: bits, two c tiles in a pass.
TALL = dataclasses.replace(
    NANO, name="tall", depth=4, width=8, lanes=4, bus_bytes=4, experts=0, nibble_tiles=2)
#: With weights of four bits three columns are where two are else: c tiles of 12 columns.
THIRDS = dataclasses.replace(
    NANO, name="thirds", depth=4, width=8, lanes=4, experts=0, packing=True, nibble_thirds=True)
pytestmark = pytest.mark.slow


def full_rate(
    arch: ArchConfig, seed: int, *, rows: int, stationary: Stationary, nibbles: int = 0,
) -> Job:
    """Independent MATMULs with data at hand and little for the epilogue to do."""
    a = Assembler(arch, seed)
    k, c = arch.depth, arch.tile_width(nibbles)
    # With nibbles a pass may have the results of two c tiles.
    depth, columns = (4 + 4 * nibbles) * k, 2 * c
    words = depth // k
    count = max(rows, depth)
    inputs = a.rng.integers(-128, 128, (words, count, k)).astype(np.int8).view(np.uint8)
    for bank in (1, 0):
        a.op(Opcode.LOAD, region=Region.INPUT, addr=bank * arch.bank_words, stride=words,
             rows=count, words=words)
    for i in range(6):
        # Each has its own weights, if they are stored.
        stored = stationary == Stationary.STORED
        at = 2 * words * arch.tile_pairs(nibbles) * i if stored else 0
        a.matmul(depth, columns, rows=rows, src_addr=0, src_stride=words, stationary=stationary,
                 st_addr=arch.bank_words + at, st_stride=words, load_distance=1, nibbles=nibbles,
                 dst_addr=2 * arch.bank_words, dst_stride=-(-columns // k))
    a.store(addr=2 * arch.bank_words, stride=-(-columns // k), rows=rows,
            words=-(-columns // k), wait_distance=1)
    return a.build(inputs.reshape(-1))


def saved(job: Job, path: Path) -> str:
    """A file for a bench."""
    np.savez(path, **vars(job))
    return str(path)


@pytest.mark.parametrize("arch", [NANO, TALL, THIRDS], ids=lambda arch: arch.name)
def test_core(arch, tmp_path):
    rates = {
        f"{source.name} {rows} rows": full_rate(arch, 1, rows=rows, stationary=source)
        for source in Stationary for rows in (16, arch.max_rows)
        if source != Stationary.STORED or arch.stored_weights
    }
    rates |= {
        f"nibbles {rows} rows": full_rate(
            arch, 1, rows=rows, stationary=Stationary.WEIGHTS, nibbles=1)
        for rows in (16, arch.max_rows) if arch.sees_nibbles
    } | {
        f"STORED nibbles {rows} rows": full_rate(
            arch, 1, rows=rows, stationary=Stationary.STORED, nibbles=1)
        for rows in (16, arch.max_rows) if arch.stored_nibbles
    }
    # All cases run in test_experts.
    mixtures = {
        name: mixture(arch, 1, CASES[name]).job
        for name in ("two_images_of_two_tasks", "four_choices", "gaps", "in_chunks")
    } | {"routed_heads": routed_heads(arch, 1)} if arch.experts else {}
    patterns = {f"patterns {seed}": access_patterns(arch, seed) for seed in (1, 2, 3)}
    programs = mixtures | patterns
    jobs = {"every_mechanism": every_mechanism(arch, 1)} | rates | programs
    files = {name: saved(job, tmp_path / f"{i}.npz") for i, (name, job) in enumerate(jobs.items())}
    simulate(Wrapper(arch, trace=True), f"core-{arch.name}", BENCHES / "core_bench.py", arch=arch,
             options={"jobs": files, "rates": list(rates), "programs": list(programs)})
