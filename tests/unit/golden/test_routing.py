"""Gate softmax, top-k and queues against real arithmetic, and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from vitrify.arch import formats
from vitrify.golden.ops import routing

ONE = 1 << formats.GATE_FRAC
INT16 = st.integers(-(2**15), 2**15 - 1)
#: Few values: many ties, both ends of the range.
TIES = st.sampled_from([-(2**15), -1, 0, 1, 2**15 - 1])


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    experts = draw(st.integers(1, formats.MAX_EXPERTS))
    choices = draw(st.integers(1, min(experts, formats.MAX_CHOICES)))
    shape = (draw(st.integers(1, 12)), experts)
    elements = draw(st.sampled_from([INT16, TIES]))
    return draw(nps.arrays(np.int16, shape, elements=elements)), choices


@given(cases())
def test_choice_is_the_best_and_then_the_lower_number(case: tuple[np.ndarray, int]) -> None:
    logits, choices = case
    for row, chosen in zip(logits.tolist(), routing.choose(logits, choices).tolist(), strict=True):
        assert chosen == sorted(range(len(row)), key=lambda e: (-row[e], e))[:choices]


@given(cases(), st.booleans())
@example((np.array([[0] + [-3004] * 60], np.int16), 1), False)
def test_weights_are_the_softmax(case: tuple[np.ndarray, int], normalise: bool) -> None:
    logits, choices = case
    experts, weight = routing.gate(logits, choices, normalise=normalise)
    real = 2.0 ** ((logits - logits.max(axis=1, keepdims=True).astype(float)) / 256)
    chosen = np.take_along_axis(real, experts, axis=1)
    want = chosen / (chosen if normalise else real).sum(axis=1, keepdims=True)
    assert weight.min() >= 0
    assert weight.max() <= ONE
    # The reciprocal is off by 2**-10, a weight by half a step, a term of the sum by 3/4 of a
    # step of its own: it is rounded in the table, and behind the shift.
    terms = choices if normalise else logits.shape[1]
    error = 2**-10 + 0.5 / ONE + terms * 0.75 * 2.0**-formats.ROUTE_BITS
    assert np.abs(weight / ONE - want).max() < error
    assert (np.diff(weight, axis=1) <= 0).all()
    if choices == 1 and normalise:
        assert (weight == ONE).all()


@given(cases())
def test_queues_hold_every_choice_once(case: tuple[np.ndarray, int]) -> None:
    logits, choices = case
    experts, weight = routing.gate(logits, choices, normalise=False)
    found = routing.queues(experts, weight, logits.shape[1])
    at = 0
    seen: set[int] = set()
    for expert in range(logits.shape[1]):
        assert found.start[expert] == at
        rows = [r for r, row in enumerate(experts.tolist()) if expert in row]
        here = slice(at, at + int(found.count[expert]))
        assert found.row[here].tolist() == rows
        assert found.first[here].tolist() == [r not in seen for r in rows]
        assert found.weight[here].tolist() == [
            int(weight[r, experts[r].tolist().index(expert)]) for r in rows
        ]
        seen.update(rows)
        at += len(rows)
    assert at == experts.size
    assert seen == set(range(len(logits)))


@pytest.mark.parametrize("experts", [1, 2, 16, 64])
def test_equal_logits_share_equally(experts: int) -> None:
    for level in (-(2**15), 0, 2**15 - 1):
        _, weight = routing.gate(np.full((1, experts), level, np.int16), 1, normalise=False)
        assert abs(int(weight[0, 0]) - ONE / experts) <= ONE / experts * 2**-9 + 1


def test_saturated_logits() -> None:
    logits = np.array([[-(2**15), 2**15 - 1, -(2**15)]], np.int16)
    experts, weight = routing.gate(logits, 2, normalise=True)
    assert experts.tolist() == [[1, 0]]
    assert weight.tolist() == [[ONE, 0]]


def test_scale_by_one_changes_nothing() -> None:
    multiplier = np.array([0, 1, 32769, 65535], np.uint16)
    scaled = routing.scale(multiplier, np.array([ONE, 0]))
    assert scaled.tolist() == [multiplier.tolist(), [0] * 4]
