"""What each technique is worth: M3ViT's shape with it and without it, in the estimator.

A technique is taken away by rewriting the compiled program: the estimator then follows the waits of
the same core on more instructions.  Nothing here can be executed, only timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import RESULTS, feed_of, routing_of
from bench.shapes import SHAPES
from tests.support.synthetic import vision_transformer
from vitrify.arch import isa, memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction, Opcode, Stationary, Stats, Transform
from vitrify.arch.presets import preset
from vitrify.codegen.strategy import Ahead, PlacementStrategy
from vitrify.compiler.compile import compile_graph
from vitrify.estimate import estimate
from vitrify.program import LayerInfo, Program
from vitrify.runtime.routing import Routing

SHAPE = next(shape for shape in SHAPES if shape.name == "m3vit_tiny_shape")
PRESETS = ("zcu102", "kv260")
#: Queries that share a pass over the keys without stationary tiles: Edge-MoE's parallelism.
_QUERIES = 4
#: Fields of a MATMUL that count MATMULs.
_DISTANCES = ("dep_distance", "st_distance")


@dataclass(frozen=True)
class Step:
    """One MATMUL with the numbers of those it waits for (in the list before any rewriting)."""

    op: Instruction
    layer: LayerInfo
    number: int
    waits: dict[str, int]


#: What takes the place of a MATMUL; given the rows of every expert of its ROUTE.
Rewrite = Callable[[ArchConfig, Step, tuple[int, ...]], list[Instruction]]


def token_by_token(_arch: ArchConfig, step: Step, counts: tuple[int, ...]) -> list[Instruction]:
    """Experts are loaded for every token that asks for them."""
    op = step.op
    if not op.expert_rows:
        return [op]
    one = _changed(op, rows=1, expert_rows=0, gate=0, src_list=0, dst_list=0, dep_end=0)
    return [one] * (counts[op.expert] if not op.expert_first else 0)


def three_pass_softmax(_arch: ArchConfig, step: Step, _counts: Any) -> list[Instruction]:
    """Scores are read for their maximum, and again for exponents and sum, before they are used."""
    return [step.op, *([_pass_over(step.op)] * 2 if step.op.stats == Stats.MAX else [])]


def separate_gelu(_arch: ArchConfig, step: Step, counts: tuple[int, ...]) -> list[Instruction]:
    """Hidden layers are read and written once more for their activation."""
    op = step.op
    if not op.activation:
        return [op]
    if op.expert_rows:
        # Rows of the queue, known here: the pass would be left out with its expert.
        rows = min(op.rows, counts[op.expert] - op.expert_first)
        return [op, _changed(_pass_over(op), rows=rows)] if rows > 0 else [op]
    return [op, _pass_over(op)]


#: Techniques in the order of Edge-MoE's table.  Experts ahead of time, before, and queries in small
#: blocks, behind, are compiled, not rewritten.
TECHNIQUES: dict[str, Rewrite] = {
    "expert by expert": token_by_token,
    "single-pass softmax": three_pass_softmax,
    "activation in the epilogue": separate_gelu,
}
AHEAD, STATIONARY = "experts ahead of time", "stationary keys and values"
#: Edge-MoE's own ablation on a ZCU102, as published: technique added, milliseconds.
EDGE_MOE = (
    ("nothing", 650.3), ("expert by expert", 433.4), ("single-pass softmax", 353.4),
    ("GELU table", 212.9), ("unified linear unit", 104.3), ("attention reordering", 34.6),
)


def _changed(op: Instruction, **values: int) -> Instruction:
    return replace(op, values={**op.values, **values})


def _pass_over(op: Instruction) -> Instruction:
    """Read what ``op`` wrote and write it back: a row a cycle for each c tile, no weights."""
    return isa.make(
        Opcode.MATMUL, src_addr=op.dst_addr, src_stride=op.dst_stride, rows=op.rows, k_tiles=1,
        k_last=1, c_tiles=op.c_tiles, c_last=op.c_last, transform=Transform.NONE,
        stationary=Stationary.ROWS, st_addr=op.dst_addr, st_stride=op.dst_stride,
        dst_addr=op.dst_addr, dst_stride=op.dst_stride, dep_distance=1, dep_end=1,
    )


def without(program: Program, routing: Routing, rewrites: list[Rewrite]) -> Program:
    """The program, every MATMUL rewritten, every wait where it was."""
    layers = {layer.instruction: layer for layer in program.layers}
    code: list[Instruction] = []
    found: list[LayerInfo] = []
    #: MATMULs before rewriting to the last one in their place.
    place: list[int] = []
    counts, queues = iter(routing.counts), ()
    for number, op in enumerate(program.instructions()):
        if op.opcode is Opcode.ROUTE and not op.joins:
            queues = next(counts)
        if op.opcode is not Opcode.MATMUL:
            code.append(_moved(op, "wait_distance", place, len(found)))
            continue
        waits = {name: len(place) - getattr(op, name) for name in _DISTANCES if getattr(op, name)}
        made = _apply(program.arch, Step(op, layers[number], len(place), waits), queues, rewrites)
        for i, part in enumerate(made):
            values = dict(part.values)
            for name in waits if part.src_addr != part.dst_addr else ():
                if part.values[name]:
                    values[name] = _distance(len(found), place[waits[name]])
            found.append(replace(
                layers[number], instruction=len(code), macs=layers[number].macs if not i else 0
            ))
            code.append(Instruction(part.opcode, values))
        place.append(max(len(found) - 1, 0))
    return _rebuilt(program, code, found)


def _apply(
    arch: ArchConfig, step: Step, queues: tuple[int, ...], rewrites: list[Rewrite]
) -> list[Instruction]:
    made = [step.op]
    for rewrite in rewrites:
        made = [new for op in made for new in rewrite(arch, replace(step, op=op), queues)]
    return made


def _moved(op: Instruction, name: str, place: list[int], now: int) -> Instruction:
    if not op.values.get(name):
        return op
    return _changed(op, **{name: _distance(now, place[len(place) - op.values[name]])})


def _distance(now: int, then: int) -> int:
    return min(max(now - then, 1), isa.MAX_DISTANCE)


def _rebuilt(program: Program, code: list[Instruction], layers: list[LayerInfo]) -> Program:
    """The program with other instructions; its weights move behind them."""
    old = program.instruction_count * isa.INSTRUCTION_BYTES
    size = len(code) * isa.INSTRUCTION_BYTES
    grown = -(-(size - old) // memmap.ALIGNMENT) * memmap.ALIGNMENT
    head = np.zeros(old + grown, np.uint8)
    for i, op in enumerate(code):
        values = dict(op.values)
        if op.opcode is Opcode.MATMUL and op.stream_words:
            values["stream_offset"] += grown
        if op.opcode is Opcode.LOAD and op.region == isa.Region.PROGRAM:
            values["offset"] += grown
        at = i * isa.INSTRUCTION_BYTES
        packed = isa.pack(Instruction(op.opcode, values))
        head[at : at + len(packed)] = np.frombuffer(packed, np.uint8)
    return replace(
        program, image=np.concatenate([head, program.image[old:]]), instruction_count=len(code),
        layers=tuple(layers),
    )


def variants(arch: ArchConfig) -> Iterator[tuple[str, int]]:
    """Name and cycles: everything, each technique taken away, nothing."""
    graph = vision_transformer(**SHAPE.shape)
    graph.name = SHAPE.name
    whole = compile_graph(graph, arch)
    ahead = whole.metadata.get("experts_ahead", 0)
    blocks = -(-graph.tensors[graph.input.out].rows // _QUERIES)

    def compiled(*, score_blocks: int = 1, preloads: int = 0) -> Program:
        way = PlacementStrategy(score_blocks=score_blocks, ahead=Ahead(preloads))
        return compile_graph(graph, arch, ways=[way])

    routing = routing_of(whole, feed_of(SHAPE, whole))
    assert routing is not None

    def cycles(program: Program, *rewrites: Rewrite) -> int:
        return estimate(without(program, routing, list(rewrites)), routing=routing).cycles

    yield "all techniques", cycles(whole)
    yield f"without {AHEAD}", cycles(compiled())
    for name, rewrite in TECHNIQUES.items():
        # Whose experts come token by token has none to load ahead.
        yield f"without {name}", cycles(
            compiled() if rewrite is token_by_token else whole, rewrite
        )
    yield f"without {STATIONARY}", cycles(compiled(score_blocks=blocks, preloads=ahead))
    yield "none of them", cycles(compiled(score_blocks=blocks), *TECHNIQUES.values())


def measure() -> dict[str, Any]:
    """Every variant on every preset; written to the results."""
    found: dict[str, Any] = {"model": SHAPE.name, "cores": {}}
    for name in PRESETS:
        arch = preset(name)
        found["cores"][name] = {
            "clock_mhz": arch.clock_mhz, "cycles": dict(variants(arch)),
        }
    path = results()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def results() -> Path:
    """Where the measured variants are."""
    return RESULTS / "ablation" / f"{SHAPE.name}.json"
