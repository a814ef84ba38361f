"""A sample of the input fuzzer; docs/verification.md has the counts of the long run."""

from __future__ import annotations

import logging

import pytest

from tests.fuzz import inputs

SEED = 2026
#: Cases of each kind.
COUNT = 40
#: Cases of seed 1 that were wrong once.
FOUND = (643, 1520, 1609, 1645, 1802, 1898, 2940, 3259, 3883, 4003, 4399, 9229)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", inputs.KINDS)
def test_every_input_ends_in_a_result_or_a_sentence(kind):
    first = list(inputs.KINDS).index(kind)
    wrong = {}
    for number in range(first, COUNT * len(inputs.KINDS), len(inputs.KINDS)):
        result = inputs.run(SEED, number)
        if result not in ("ok", "refused"):
            wrong[number] = result
    assert wrong == {}, f"python -m tests.fuzz inputs --seed {SEED} --case N"


@pytest.mark.parametrize("number", FOUND)
def test_what_earlier_runs_found(number):
    assert inputs.run(1, number) in ("ok", "refused")


def test_a_case_repeats_itself():
    assert [inputs.run(3, n) for n in range(12)] == [inputs.run(3, n) for n in range(12)]


def test_the_fuzzer_sees_what_is_wrong(monkeypatch):
    def crash(_rng, _folder):
        raise KeyError("x")

    def spin(_rng, _folder):
        while True:
            pass

    monkeypatch.setattr(inputs.limits, "MOST_SECONDS", 0.2)
    monkeypatch.setitem(inputs.KINDS, "YAML", crash)
    monkeypatch.setitem(inputs.KINDS, "array", spin)
    kinds = list(inputs.KINDS)
    assert inputs.run(1, kinds.index("YAML")).startswith("KeyError: 'x' (test_inputs.py:")
    assert inputs.run(1, kinds.index("array")).startswith("hang")
