"""Published systems, exported both ways: canonical graphs equal the originals, programs do well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from agree import assert_agrees

from tests.systems import DATA, feeds, judged
from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise, load

FILES = sorted(DATA.glob("systems/*.onnx"))
LARGEST = 40_000
#: Which tokens go on, which are joined, which head answers: decisions that the host takes, from
#: this operator on.
DECIDES = {
    "evit": "GatherElements", "ia_red2": "ReduceMax", "jei_dnn": "Where", "tome": "ReduceMax",
}  # fmt: skip
#: Decibels that every output reaches.
ENOUGH = 20.0
#: How many are compiled here, and one with a host part; ``python -m tests.systems`` compiles all.
COMPILED, SEED = 5, 27


def system(path: Path) -> str:
    return path.stem.rpartition("_")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_canonical_graph(path: Path) -> None:
    model = load(path)
    if system(path) in DECIDES:
        with pytest.raises(UnsupportedOpError, match=rf"\({DECIDES[system(path)]}\)"):
            canonicalise(model)
        return
    assert_agrees(model, feeds(model, 3))


def test_both_exporters_and_small() -> None:
    names = {system(path) for path in FILES}
    assert {path.stem for path in FILES} == {f"{n}_{e}" for n in names for e in ("ts", "dynamo")}
    assert max(path.stat().st_size for path in FILES) <= LARGEST


PLACES = np.random.default_rng(SEED).choice(len(FILES), COMPILED, replace=False)
SAMPLE = [*(FILES[i] for i in PLACES), DATA / "systems" / "tome_ts.onnx"]


@pytest.mark.parametrize("path", SAMPLE, ids=lambda path: path.stem)
def test_program(path: Path) -> None:
    """The compiler compares the program with its integer graph itself."""
    case = judged(path)
    assert case.place == ("core, host" if system(path) in DECIDES else "core")
    assert case.snr >= ENOUGH


def test_weights_that_may_all_be_zero_are_divided_by_sums_of_16_bits() -> None:
    """MPCViT's ReLU softmax: the table of reciprocals alone reached 15 dB."""
    assert judged(DATA / "systems" / "mpcvit_ts.onnx").snr >= 30
