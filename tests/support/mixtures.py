"""A mixture-of-experts block written by hand, and cases of what the gate may decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitrify.arch import formats, isa
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Opcode, Output, Region, Stats, Transform
from vitrify.program import InputSpec, LayerInfo, OutputSpec, Program, TensorInfo
from vitrify.selftest.programs import Assembler, Job

#: Gate logits ``[rows, experts]`` of a case.
Logits = Callable[[np.random.Generator, int, int], np.ndarray]


def _all_to(expert: int) -> Logits:
    def logits(rng: np.random.Generator, rows: int, experts: int) -> np.ndarray:
        made = rng.integers(-3000, 1000, (rows, experts))
        made[:, expert % experts] = 2000
        return made
    return logits


def _random(rng: np.random.Generator, rows: int, experts: int) -> np.ndarray:
    return rng.normal(0, 500, (rows, experts)).round()


def _one_each(_rng: np.random.Generator, rows: int, experts: int) -> np.ndarray:
    return 1000 * (np.arange(experts) == np.arange(rows)[:, None] % experts)


def _ties(rng: np.random.Generator, rows: int, experts: int) -> np.ndarray:
    return rng.choice([-300, 0, 300], (rows, experts))


def _saturated(rng: np.random.Generator, rows: int, experts: int) -> np.ndarray:
    return rng.choice([-(2**15), 2**15 - 1], (rows, experts))


def _gaps(rng: np.random.Generator, rows: int, experts: int) -> np.ndarray:
    """Nobody asks for the first, the last and one in the middle."""
    made = rng.integers(0, 500, (rows, experts))
    made[:, [0, experts // 2, experts - 1]] = -20_000
    return made


def _pair(rng: np.random.Generator, rows: int, experts: int) -> np.ndarray:
    """Two neighbours share every row."""
    made = rng.integers(-900, 0, (rows, experts))
    made[:, 2:4] = rng.integers(500, 900, (rows, 2))
    return made


@dataclass(frozen=True)
class Case:
    """What the gate says, and how many rows and choices there are."""

    logits: Logits | None
    rows: int
    choices: int
    normalise: bool = False
    task: int = 0
    #: Rows of an expert's instructions at most (0: all).
    chunk: int = 0
    #: Images that share the rows, each with the gate of its own task.
    images: int = 1
    #: Rows of each ROUTE (none: one for all).
    parts: tuple[int, ...] = ()


#: ``logits`` None: computed by the gate of the job's task.
CASES = {
    "gate": Case(None, 18, 2),
    "gate_of_another_task": Case(None, 18, 2, normalise=True, task=2),
    "two_images_of_two_tasks": Case(None, 18, 2, task=1 | 2 << 8, images=2),
    "random": Case(_random, 18, 2),
    "four_choices": Case(_random, 13, 4, normalise=True),
    "all_to_the_first": Case(_all_to(0), 18, 1),
    "all_to_the_last": Case(_all_to(-1), 18, 1, normalise=True),
    "one_row_each": Case(_one_each, 8, 1),
    "fewer_rows_than_experts": Case(_random, 3, 1),
    "one_row": Case(_random, 1, 2),
    "ties": Case(_ties, 18, 2),
    "saturated": Case(_saturated, 18, 3),
    "gaps": Case(_gaps, 18, 2),
    "neighbours_share_all_rows": Case(_pair, 18, 2, normalise=True),
    "in_chunks": Case(_pair, 18, 2, chunk=8),
    "in_parts": Case(_gaps, 12, 2, parts=(5, 1, 6)),
    "many_join_few": Case(_random, 12, 3, normalise=True, parts=(1, 11)),
}
#: The tasks of which there are gates.
TASKS = 3


@dataclass(frozen=True)
class Mixture:
    """The block's job with what a reference needs to know of it."""

    job: Job
    assembler: Assembler
    dim: int
    hidden: int
    #: Pair words of the tensors that the block adds to and writes, and of the logits.
    residual: int
    result: int
    logits: int
    #: Gains, and activation tables of the experts.
    gains: list[np.ndarray]
    tables: list[np.ndarray]


def mixture(arch: ArchConfig, seed: int, case: Case) -> Mixture:
    """Residual, gate, ROUTE, a dense product meanwhile, all experts, and readers of the result."""
    a = Assembler(arch, seed)
    rng, k, size = a.rng, arch.depth, arch.bank_words
    rows, dim, hidden, experts = case.rows, 2 * k + 3, k + 1, arch.experts
    words, hidden_words, logit_words = (-(-n // k) for n in (dim, hidden, experts))
    x, inner, dense, last, across = 0, size, size + 80, 80, size + 160
    residual, result, logits = 2 * size, 2 * size + 100, size + 160
    norm = dict(zip(("inv_dim", "inv_shift"), formats.inv_dim(dim), strict=True))
    gains = [rng.integers(60, 256, dim).astype(np.uint8) for _ in range(2)]
    tables = [rng.integers(-127, 128, 256).astype(np.int8) for _ in range(experts)]

    def load(values: np.ndarray, into: int) -> None:
        """int16 from the image; what lies behind the last channel is zero."""
        count = -(-values.shape[1] // k)
        padded = np.zeros((rows, count * k), "<i2")
        padded[:, : values.shape[1]] = values
        block = padded.reshape(rows, count, k).transpose(1, 0, 2)
        planes = np.stack([block & 0xFF, block >> 8 & 0xFF], axis=2).astype(np.uint8)
        a.op(Opcode.LOAD, region=Region.PROGRAM, offset=a.data(planes), addr=into, stride=count,
             rows=rows, words=count, wide=1)

    inputs = rng.integers(-128, 128, (words, rows, k)).astype(np.int8).view(np.uint8).reshape(-1)
    if case.logits is not None:
        load(case.logits(rng, rows, experts), logits)
    load(rng.integers(-3000, 3000, (rows, dim)), residual)
    a.op(Opcode.LOAD, region=Region.INPUT, addr=x, stride=words, rows=rows, words=words)
    a.matmul(dim, dim, rows=rows, src_addr=x, src_stride=words, output=Output.ADD16,
             dst_addr=residual, dst_stride=words, stats=Stats.NORM, stat_dst=5, epsilon=3,
             load_distance=1, epi_load_distance=1, post_shift=1, pre_shift=5, **norm)
    if case.logits is None:
        share = rows // case.images
        a.matmul(dim, experts, tasks=TASKS, task_source=0, gain=gains[0], rows=share,
                 src_addr=residual, src_stride=words, transform=Transform.NORM, stat_src=5,
                 output=Output.INT16, dst_addr=logits, dst_stride=logit_words, dep_distance=1,
                 dep_end=1)
        for i in range(1, case.images):
            a.again(task_source=i, gain_slot=i & 1, src_addr=residual + i * share * words,
                    stat_src=5 + i * share, dst_addr=logits + i * share * logit_words,
                    dep_distance=1 + i)
    done = 0
    for part in case.parts or (rows,):
        a.op(Opcode.ROUTE, src_addr=logits + done * logit_words, src_stride=logit_words, rows=part,
             experts=experts, choices=case.choices, normalise=int(case.normalise), wait_distance=1,
             **({"joins": 1} if done else {"base": 7, "room": rows - part}))
        done += part
    # Whatever does not belong to an expert goes on meanwhile.
    a.matmul(dim, hidden, rows=rows, src_addr=x, src_stride=words, dst_addr=dense,
             dst_stride=hidden_words)
    chunk = case.chunk or rows
    for expert in range(experts):
        for first in range(0, rows, chunk):
            own = {"expert_rows": 1, "expert": expert, "expert_first": first, "rows": chunk}
            a.matmul(dim, hidden, gain=gains[1], gain_slot=1, table=tables[expert],
                     src_addr=residual, src_stride=words, src_list=1, transform=Transform.NORM,
                     stat_src=5, dst_addr=inner, dst_stride=hidden_words, **own)
            a.matmul(hidden, dim, src_addr=inner, src_stride=hidden_words, dep_distance=1,
                     output=Output.ADD16, dst_list=1, dst_addr=result, dst_stride=words, gate=1,
                     add_addr=residual, stats=Stats.NORM, stat_dst=40, epsilon=3, post_shift=1,
                     pre_shift=5, **norm, **own)
    a.matmul(dim, hidden, gain=gains[0], rows=rows, src_addr=result, src_stride=words,
             transform=Transform.NORM, stat_src=40, dst_addr=last, dst_stride=hidden_words,
             dep_distance=1, dep_end=1)
    # From before the experts; the distance reaches over those that are skipped.
    a.matmul(hidden, hidden, rows=rows, src_addr=dense, src_stride=hidden_words,
             dst_addr=across, dst_stride=hidden_words, dep_distance=15)
    a.store(addr=result, stride=words, rows=rows, words=words, wide=1, wait_distance=3)
    for address in (last, across):
        a.store(addr=address, stride=hidden_words, rows=rows, words=hidden_words, wait_distance=1)
    job = a.build(inputs, case.task)
    return Mixture(job, a, dim, hidden, residual, result, logits, gains, tables)


def program_of(arch: ArchConfig, made: Mixture, case: Case) -> Program:
    """The mixture as a compiled program would come, for the simulator's driver."""
    rows, instructions = case.rows, [
        isa.unpack(made.job.image[at : at + isa.INSTRUCTION_BYTES].tobytes())
        for at in range(0, made.job.instructions * isa.INSTRUCTION_BYTES, isa.INSTRUCTION_BYTES)
    ]
    layers = tuple(
        LayerInfo(
            name=f"matmul{i}", instruction=i, macs=1,
            tensor=TensorInfo(name=f"t{i}", rows=op.rows, channels=1, bits=8,
                              address=op.dst_addr, stride=op.dst_stride),
        )
        for i, op in enumerate(instructions) if op.opcode is Opcode.MATMUL
    )
    inner = 2 * arch.depth + 4
    return Program(
        model="mixture", arch=arch, image=made.job.image,
        instruction_count=made.job.instructions, layers=layers,
        input=InputSpec(
            name="x", shape=(inner // 4, 2, 2 * rows), patch=(2, 2), prefix=0, rows=rows,
            multiplier=np.ones(inner // 4), offset=np.zeros(inner // 4), preprocess="none",
        ),
        outputs=tuple(
            OutputSpec(name=name, rows=rows, channels=channels, bits=bits, scale=1.0,
                       zero_point=0, offset=offset, shape=(rows, channels))
            # STOREs of whole words: 3 of the residual's kind, 2 of the others'.
            for name, channels, bits, offset in (
                ("result", made.dim, 16, 0), ("last", made.hidden, 8, 6 * rows * arch.depth),
                ("across", made.hidden, 8, 8 * rows * arch.depth),
            )
        ),
        metadata={},
    )
