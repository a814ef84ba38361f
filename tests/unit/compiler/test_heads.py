"""Routed heads through the compiler: every tensor on the golden machine equals the evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_lowering import compare
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Opcode
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.compiler.unread import leave_out

NANO = preset("nano")
#: Preset, shape, images of a job, tasks.
CASES: dict[str, tuple[Any, dict[str, Any], int, list[int] | None]] = {
    "two of three": (NANO, {"routed": Mixture(experts=3)}, 1, None),
    "all heads": (NANO, {"routed": Mixture(experts=4, normalise=True, choices=3)}, 1, None),
    "one choice": (NANO, {"routed": Mixture(experts=4, choices=1)}, 1, None),
    "all to the first": (NANO, {"routed": Mixture(experts=3, bias=(9000, 0), choices=1)}, 1, None),
    "all to the last": (
        NANO, {"routed": Mixture(experts=4, bias=(0, 0, 0, 9000), choices=1)}, 1, None,
    ),
    "nobody wants some": (NANO, {"routed": Mixture(experts=4, bias=(-9000, 0, 0, -9000))}, 1, None),
    "ties": (NANO, {"routed": Mixture(experts=4, spread=0.0)}, 1, None),
    "saturated": (NANO, {"routed": Mixture(experts=3, spread=60_000.0)}, 1, None),
    "heads of several words": (NANO, {"routed": Mixture(experts=2, choices=1), "dim": 36,
                                      "heads": 3, "blocks": 1}, 1, None),
    "wide heads, always on": (
        NANO, {"routed": Mixture(experts=2, choices=2), "heads": 2, "dim": 32}, 1, None,
    ),
    "task 1": (NANO, {"routed": Mixture(experts=3, tasks=2)}, 1, [1]),
    "two images": (NANO, {"routed": Mixture(experts=3), "image": (1, 4, 8)}, 2, None),
    "balanced": (NANO, {"routed": Mixture(experts=2, choices=1), "balanced": True}, 1, None),
    "balanced, one shared": (NANO, {"routed": Mixture(experts=3), "balanced": True}, 1, None),
    "balanced, two images": (
        NANO, {"routed": Mixture(experts=2), "balanced": True, "image": (1, 4, 8)}, 2, None,
    ),
    "balanced, one routed": (
        NANO, {"routed": Mixture(experts=1, choices=1), "balanced": True}, 1, None,
    ),
    "balanced, wide": (
        NANO, {"routed": Mixture(experts=2), "balanced": True, "dim": 64}, 1, None,
    ),
    "with experts": (NANO, {"routed": Mixture(experts=3), "mixture": Mixture()}, 1, None),
    "queues in blocks": (
        dataclasses.replace(NANO, max_rows=16),
        {"routed": Mixture(experts=3, bias=(9000, 0), choices=1)}, 1, None,
    ),
    "queues in blocks, balanced": (
        dataclasses.replace(NANO, max_rows=16), {"routed": Mixture(experts=3), "balanced": True},
        1, None,
    ),
    "small memory": (
        dataclasses.replace(NANO, banks=10, bank_words=32),
        {"routed": Mixture(experts=2, choices=1), "image": (3, 8, 8), "blocks": 1, "hidden": 512,
         "heads": 2}, 1, None,
    ),
    "reference": (
        preset("reference"),
        {"routed": Mixture(experts=6, choices=4), "balanced": True, "dim": 128, "heads": 8,
         "hidden": 96, "image": (3, 32, 32), "patch": 4}, 2, None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_machine_equals_evaluator(case: str) -> None:
    arch, shape, batch, tasks = CASES[case]
    program = compare(arch, {"heads": 4} | shape, batch, tasks)
    graph = vision_transformer(seed=3, **{"heads": 4} | shape)
    assert program.macs == batch * sum(leave_out(graph).macs.values())


def test_a_route_waits_for_those_who_use_the_queues_before() -> None:
    shape = {"routed": Mixture(experts=2), "balanced": True, "heads": 4}
    users = matmuls = 0
    for op in compile_graph(vision_transformer(**shape), NANO).instructions():
        if op.opcode is Opcode.ROUTE:
            assert matmuls - op.wait_distance >= users - 1
        elif op.opcode is Opcode.MATMUL:
            matmuls += 1
            users = matmuls if op.expert_rows else users


@pytest.mark.parametrize(("change", "message"), [
    ({"experts": 0}, "has 3 heads and arch 'nano' has no router: choose an arch with `experts`"),
    ({"experts": 2}, "has 3 heads and arch 'nano' routes to 2: choose an arch"),
    ({"index_entries": 16}, "needs 34 row-index entries for 2 heads of 17 rows .* raise"),
])
def test_too_small(change: dict[str, int], message: str) -> None:
    graph = vision_transformer(routed=Mixture(experts=3), heads=4)
    with pytest.raises(CapacityError, match=message):
        compile_graph(graph, dataclasses.replace(NANO, **change))
