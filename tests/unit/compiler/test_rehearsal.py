"""Whether tensors have room is found without instructions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.rehearsal import placements
from tests.unit.compiler.test_layers_in_bands import cut, quantised
from tests.unit.ops.checks import NANO
from tests.unit.quant import graphs
from vitrify.arch.errors import CapacityError
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.strategy import PlacementStrategy, Separation
from vitrify.compiler import compile as stage
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.unread import leave_out


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("separation", Separation)
def test_a_rehearsal_takes_the_same_places(rows: int, separation: Separation) -> None:
    """Operations are held to that one by one, by ``tests.unit.ops.checks``."""
    net = graphs.Net(2)
    graph = leave_out(quantise(net.model(graphs.vit(net)), net.images(8), arch=NANO))
    for each in (graph, cut(quantised()[0], "first.act1", "image")[0]):
        way = PlacementStrategy(separation, rows, rows)
        known, found = (placements(each, NANO, way, 1, rehearses) for rehearses in (False, True))
        assert known == found
        assert len(known) > len(each.ops) / 2


def test_what_has_no_room_is_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways to place it that have no room either take no instructions."""
    made: list[bool] = []

    class Counted(Lowering):
        def __init__(self, *args: Any, rehearses: bool = False) -> None:
            made.append(rehearses)
            super().__init__(*args, rehearses=rehearses)

    monkeypatch.setattr(stage, "Lowering", Counted)
    graph, _ = quantised()
    small = replace(NANO, name="small", banks=4, bank_words=64)
    with pytest.raises(CapacityError):
        compile_graph(graph, small)
    assert made.count(False) == 1
    assert made.count(True) > 20
