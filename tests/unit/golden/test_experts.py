"""A block of experts on the golden machine against the same arithmetic row by row."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.mixtures import CASES, Mixture, mixture
from vitrify.arch import formats, isa
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Opcode
from vitrify.arch.presets import preset
from vitrify.golden.experts import Experts
from vitrify.golden.machine import Machine
from vitrify.golden.memory import TokenMemory
from vitrify.golden.ops import layernorm, requantise, routing

NANO = preset("nano")


def tensor(tokens: TokenMemory, address: int, rows: int, channels: int) -> np.ndarray:
    words = -(-channels // NANO.depth)
    return tokens.read16(address + np.arange(rows * words).reshape(rows, words), channels)


def by_rows(made: Mixture, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What the block made, and what it should have made."""
    case, dim, job = CASES[name], made.dim, made.job
    tokens = TokenMemory(NANO)
    tokens.bytes[:] = job.tokens
    x = tensor(tokens, made.residual, case.rows, dim)
    logits = tensor(tokens, made.logits, case.rows, NANO.experts)
    inverse, shift = formats.inv_dim(dim)
    normal = layernorm.apply(
        x,
        *layernorm.finish(
            x.astype(np.int64).sum(axis=1), (x.astype(np.int64) ** 2).sum(axis=1),
            inv_dim=inverse, inv_shift=shift, epsilon=3,
        ),
        made.gains[1],
    )
    chunks = -(-case.rows // (case.chunk or case.rows))
    before = len(made.assembler.weights) - 2 - 2 * chunks * NANO.experts
    experts, gate = routing.gate(logits, case.choices, normalise=case.normalise)
    want = x.copy()
    queue = [0] * NANO.experts
    for row in range(case.rows):
        for expert in sorted(experts[row].tolist()):
            # Every chunk has weights of its own here.
            chunk = queue[expert] // (case.chunk or case.rows)
            queue[expert] += 1
            at = before + 2 * (expert * chunks + chunk)
            (w1, b1, m1), (w2, b2, m2) = made.assembler.weights[at : at + 2]
            hidden = requantise.to_int8(requantise.scale(
                (normal[row] @ w1.T.astype(np.int64)), bias=b1, pre_shift=4, multiplier=m1,
                post_shift=20, requant_bits=NANO.requant_bits,
            ), made.tables[expert]).astype(np.int64)
            weight = gate[row, experts[row].tolist().index(expert)]
            value = requantise.scale(
                (hidden @ w2.T.astype(np.int64)), bias=b2, pre_shift=5,
                multiplier=(m2.astype(np.int64) * weight + 2**13) >> 14,
                post_shift=16, requant_bits=NANO.requant_bits,
            )
            want[row] = requantise.to_int16(value, want[row])
    return tensor(tokens, made.result, case.rows, dim), want


@pytest.mark.parametrize("name", CASES)
def test_block(name: str) -> None:
    made = mixture(NANO, 3, CASES[name])
    assert made.job.output_known.sum() > made.job.output_known.size / 2
    got, want = by_rows(made, name)
    assert (got == want).all()


def test_the_task_chooses_the_gate() -> None:
    jobs = [mixture(NANO, 3, CASES[name]).job for name in ("gate", "gate_of_another_task")]
    assert (jobs[0].image[:64] == jobs[1].image[:64]).all()
    assert (jobs[0].output != jobs[1].output).any()


def run(*ops: isa.Instruction) -> None:
    image = np.frombuffer(b"".join(isa.pack(op) for op in ops), np.uint8)
    Machine(NANO).run(image, len(ops), np.zeros(0, np.uint8), 0)


@pytest.mark.parametrize(("op", "message"), [
    ((Opcode.ROUTE, {"experts": 9}), "ROUTE.experts must be 1 to 8 on arch 'nano', not 9"),
    ((Opcode.ROUTE, {"experts": 2, "choices": 3}), "ROUTE to 3 of 2 experts"),
    ((Opcode.ROUTE, {"rows": 32, "experts": 8, "choices": 4, "base": 1}), "128 row-index entries"),
    ((Opcode.ROUTE, {"rows": 4, "experts": 8, "choices": 1, "room": 15, "base": 5}),
     "124 row-index entries from 5 on"),
    ((Opcode.ROUTE, {"rows": 4, "joins": 1}), "joins 4 rows where there is room for 0"),
    ((Opcode.MATMUL, {"expert_rows": 1, "expert": 8}), "MATMUL.expert must be 0 to 7 on"),
    ((Opcode.MATMUL, {"gate": 1, "row_scale": 1}), "either gate or row_scale"),
])
def test_what_cannot_be(op: tuple[Opcode, dict[str, int]], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        run(isa.make(op[0], **op[1]))


def test_queues_may_fill_the_index_memory() -> None:
    fitting = {"rows": 31, "experts": 8, "choices": 4, "base": NANO.index_entries - 124}
    run(isa.make(Opcode.ROUTE, **fitting), isa.make(Opcode.END))


def test_parts_fill_the_queues_of_the_whole() -> None:
    rng, experts, tokens = np.random.default_rng(0), NANO.experts, TokenMemory(NANO)
    tokens.write16(np.arange(12)[:, None], rng.integers(-300, 300, (12, experts)).astype(np.int16))
    whole, parts = (Experts(NANO, np.zeros(NANO.index_entries, np.int64)) for _ in range(2))
    common = {"src_stride": 1, "experts": experts, "choices": 2}
    whole.route(isa.make(Opcode.ROUTE, rows=12, **common), tokens)
    parts.route(isa.make(Opcode.ROUTE, rows=5, room=7, base=3, **common), tokens)
    for first, rows in ((5, 1), (6, 6)):
        parts.route(isa.make(Opcode.ROUTE, rows=rows, src_addr=first, joins=1, **common), tokens)
    assert (parts.count == whole.count).all()
    for expert, count in enumerate(whole.count[:experts]):
        one, other = (
            np.column_stack([each._index, each.gates])[each.start[expert] :][:count]
            for each in (whole, parts)
        )
        assert (one == other).all()


@pytest.mark.parametrize("address", [-1, NANO.token_words])
def test_words_outside_the_token_memory_are_refused(address: int) -> None:
    tokens = TokenMemory(NANO)
    with pytest.raises(ProgramError, match="outside the"):
        tokens.read8(np.array([[address]]), 4)
    with pytest.raises(ProgramError, match="outside the"):
        tokens.write8(np.array([[address]]), np.zeros((1, 4), np.int8))


def test_a_core_without_experts_refuses() -> None:
    image = np.frombuffer(isa.pack(isa.make(Opcode.MATMUL, expert_rows=1)), np.uint8)
    with pytest.raises(ProgramError, match="arch 'ulx3s' is without 'experts'"):
        Machine(preset("ulx3s")).run(image, 1, np.zeros(0, np.uint8), 0)


def test_a_core_that_keeps_no_weights_refuses() -> None:
    stored = isa.make(Opcode.MATMUL, stationary=isa.Stationary.STORED, stream_words=16)
    image = np.frombuffer(isa.pack(stored) + bytes(4096), np.uint8)
    with pytest.raises(ProgramError, match="arch 'ulx3s' is without 'stored_weights'"):
        Machine(preset("ulx3s")).run(image, 1, np.zeros(0, np.uint8), 0)
