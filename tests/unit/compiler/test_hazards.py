"""The happens-before checker, against a graph of all events and its closure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.event_graph import EventGraph, Step, steps
from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch import isa
from vitrify.arch.isa import Instruction, Opcode
from vitrify.arch.presets import preset
from vitrify.codegen.builder import Builder
from vitrify.compiler import compile_graph
from vitrify.compiler.hazards import HazardError, hazards
from vitrify.program import Program, pack_input

NANO = preset("nano")
#: Fields that say what is waited for.
DISTANCES = ("dep_distance", "st_distance", "load_distance", "epi_load_distance", "wait_distance")
WAITS = {*DISTANCES, "dep_k", "dep_end", "load_stream", "epi_load_stream"}
#: Few rows and tiles: every event is a node.
SMALL = {"image": (1, 4, 4), "dim": 16, "hidden": 24, "blocks": 1}
PROGRAMS: dict[str, dict[str, Any]] = {
    "class token": SMALL,
    "pooled": {**SMALL, "pooled": True, "prefix": 0},
    "experts": {**SMALL, "dim": 8, "blocks": 2, "hidden": 8, "mixture": Mixture(
        experts=2, choices=1, hidden=12)},
    "experts ahead of time": {**SMALL, "dim": 8, "blocks": 2, "hidden": 8, "mixture": Mixture(
        experts=4, choices=2, hidden=8)},
    "routed heads": {**SMALL, "dim": 24, "heads": 3, "routed": Mixture(experts=2, choices=1)},
}


def mutants(code: list[Instruction]) -> Iterator[tuple[int, str, Instruction]]:
    """Every wait removed, and weakened in every way that there is."""
    for number, op in enumerate(code):
        for name in DISTANCES:
            distance = op.values.get(name, 0)
            lowest = isa.FORMATS[op.opcode].field(name).low if distance else 0
            for value in {lowest, min(distance + 1, isa.MAX_DISTANCE)} if distance else ():
                if value != distance:
                    yield number, f"{name}={value}", changed(op, name, value)
        if op.opcode is not Opcode.MATMUL:
            continue
        if op.dep_distance and not op.dep_end and op.dep_k < op.k_tiles:
            yield number, "dep_k", changed(op, "dep_k", op.dep_k + 1)
        if op.dep_end:
            yield number, "dep_end", changed(op, "dep_end", 0)
        for name in ("load", "epi_load"):
            if op.values[f"{name}_distance"] and not op.values[f"{name}_stream"]:
                yield number, f"{name}_stream", changed(op, f"{name}_stream", 1)


def changed(op: Instruction, name: str, value: int) -> Instruction:
    return Instruction(op.opcode, {**op.values, name: value})


def program_of(shape: dict[str, Any]) -> Program:
    return compile_graph(vision_transformer(seed=3, **shape), NANO)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_weakened_wait_is_judged_as_the_events_are(name: str) -> None:
    program = program_of(PROGRAMS[name])
    code = list(program.instructions())
    pixels = np.random.default_rng(1).normal(size=(1, 1, 4, 4)).astype(np.float32)
    run = steps(program, pack_input(NANO, program.input, pixels).reshape(-1))
    assert not hazards(NANO, code, program.image)
    assert not set(EventGraph(NANO, run).hazards())
    routed, verdicts = any(op.opcode is Opcode.ROUTE for op in code), []
    for number, what, op in list(mutants(code))[:: 4 if routed else 1]:
        found = hazards(NANO, [*code[:number], op, *code[number + 1 :]], program.image)
        resolved = run[number].op.values if op.opcode is Opcode.MATMUL else op.values
        weak: list[Step] = list(run)
        waits = {key: value for key, value in op.values.items() if key in WAITS}
        weak[number] = replace(run[number], op=Instruction(op.opcode, {**resolved, **waits}))
        matters = any(True for _ in EventGraph(NANO, weak).hazards())
        # A run has one set of queues; the program is to be right for all of them.
        assert bool(found) == matters or (routed and found), (number, what, str(op))
        verdicts.append(matters)
    print(f"{sum(verdicts)} of {len(verdicts)} weakened waits matter")
    assert sum(verdicts) > 5
    assert not all(verdicts)




def test_a_compilation_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Builder, "_wait_fetch", lambda *_: None)
    with pytest.raises(HazardError, match=r"instruction 2 may read too early .* words 512 to "
                       r"516 of instruction 0, .*load_distance 0.*\(2 is 'embed'\)"):
        program_of(SMALL)


def one_changed(program: Program, number: int, **values: int) -> list[str]:
    """What the checker says when fields of one instruction have other values."""
    code = list(program.instructions())
    code[number] = Instruction(code[number].opcode, {**code[number].values, **values})
    return [str(hazard) for hazard in hazards(NANO, code, program.image)]


def test_gains_and_tables_are_not_overwritten_in_use() -> None:
    program = program_of(SMALL)
    code = list(program.instructions())
    gains = [i for i, op in enumerate(code) if op.values.get("load_gain")]
    # The first layer behind the attention has another LayerNorm than q, k and v.
    found = one_changed(program, gains[1], gain_slot=code[gains[0]].gain_slot)
    assert not found    # the attention lies between
    direct = Instruction(Opcode.MATMUL, {**code[gains[0] + 1].values, "load_gain": 1})
    assert any("gain half" in str(h) for h in hazards(
        NANO, [*code[: gains[0] + 1], direct, *code[gains[0] + 2 :]], program.image))
    assert any("nobody has filled" in text for text in one_changed(program, gains[0], load_gain=0))
    table = next(i for i, op in enumerate(code) if op.values.get("load_table"))
    assert any("table half" in text for text in one_changed(program, table, load_table=0))


def test_nothing_waits_for_a_store() -> None:
    program = program_of(SMALL)
    code = list(program.instructions())
    store = next(i for i, op in enumerate(code) if op.opcode is Opcode.STORE)
    load = Instruction(Opcode.LOAD, {**code[0].values, "addr": code[store].addr, "wide": 1})
    found = hazards(NANO, [*code[: store + 1], load, code[-1]], program.image)
    assert any("waits for a STORE" in str(hazard) for hazard in found), [*map(str, found)]


def test_experts_count_on_nobody_who_may_be_skipped() -> None:
    program = program_of(PROGRAMS["experts"])
    code = list(program.instructions())
    own = [i for i, op in enumerate(code) if op.values.get("expert_rows") and op.load_table]
    code[own[1]] = Instruction(Opcode.MATMUL, {
        **code[own[1]].values, "load_table": 0, "table_slot": code[own[0]].table_slot})
    found = hazards(NANO, code, program.image)
    assert any("table half" in str(h) and "no rows" in str(h) for h in found)
