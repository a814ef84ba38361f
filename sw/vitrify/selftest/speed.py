"""Programs that measure: one that does nothing, one that only loads, one that only stores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vitrify.arch import isa
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Opcode, Region
from vitrify.estimate.core import timeline
from vitrify.program import InputSpec, LayerInfo, OutputSpec, Program, TensorInfo

from .programs import Assembler, Job

#: Moves of a measurement: enough that the first one's latency is a percent.
_MOVES = 24


def _blocks(arch: ArchConfig) -> dict[str, int]:
    """One word of as many rows as a bank has, or an instruction can."""
    rows = min(arch.bank_words, isa.FORMATS[Opcode.LOAD].field("rows").max)
    return {"addr": 0, "stride": 1, "rows": rows, "words": 1}


def nothing(arch: ArchConfig) -> Job:
    """A program that ends at once: latency of a job."""
    return Assembler(arch, 1).build(np.zeros(arch.depth, np.uint8))


def loads(arch: ArchConfig) -> Job:
    """LOADs into one place, one behind the other."""
    a, move = Assembler(arch, 1), _blocks(arch)
    data = a.data(a.rng.integers(0, 256, move["rows"] * arch.depth, np.uint8))
    for _ in range(_MOVES):
        a.op(Opcode.LOAD, region=Region.PROGRAM, offset=data, **move)
    # It waits for the last of them.
    a.matmul(arch.depth, 1, rows=1, src_addr=0, src_stride=1, load_distance=1,
             dst_addr=arch.bank_words, dst_stride=1)
    return a.build(np.zeros(arch.depth, np.uint8))


def stores(arch: ArchConfig) -> Job:
    """STOREs from one place, one behind the other."""
    a, move = Assembler(arch, 1), _blocks(arch)
    for _ in range(_MOVES):
        a.store(**move)
    return a.build(np.zeros(arch.depth, np.uint8))


#: What is measured, with the counter of its beats.
MEASURES: dict[str, tuple[Callable[[ArchConfig], Job], str]] = {
    "an empty job": (nothing, ""),
    "reading DRAM": (loads, "DRAM_READ_BEATS"),
    "writing DRAM": (stores, "DRAM_WRITE_BEATS"),
}


def as_program(arch: ArchConfig, job: Job) -> Program:
    """A hand-written job as the program that a compiler would have made: one input, one output."""
    rows = max(1, len(job.input) // arch.depth)
    one = np.ones(arch.depth)
    matmuls = [i for i, op in enumerate(job.code()) if op.opcode is Opcode.MATMUL]
    channels = max(1, len(job.output))
    return Program(
        model="selftest", arch=arch, image=job.image, instruction_count=job.instructions,
        input=InputSpec(name="x", shape=(arch.depth, rows, 1), patch=(1, 1), prefix=0, rows=rows,
                        multiplier=one, offset=0 * one),
        outputs=(OutputSpec(name="y", rows=1, channels=channels, bits=8, scale=1.0,
                            shape=(channels,)),),
        layers=tuple(
            LayerInfo(name=f"{i}", instruction=i, macs=1, tensor=TensorInfo(
                name="t", rows=1, channels=1, bits=8, address=0, stride=1))
            for i in matmuls
        ),
    )


def predicted(arch: ArchConfig, job: Job) -> int:
    """Cycles of a job by the estimator."""
    return timeline(as_program(arch, job)).cycles
