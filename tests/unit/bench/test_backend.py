"""The score of ``onnx.backend.test``: some cases, how results are judged, the tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from bench import backend, backend_score
from bench.backend import TestCase as Case

#: Seed of the sample, and of how many cases it is.
_SEED, _SAMPLE = 7, 12


def case_of(op_type: str, x: np.ndarray, y: np.ndarray) -> Case:
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x"], ["y"])], op_type,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Case("node", op_type, model, {"x": x}, (y,))


def test_a_sample_of_cases() -> None:
    """None is wrong, none ends in anything but a sentence, and each ends as it did on file."""
    found = backend_score.on_file()
    on_file = {(case["kind"], case["name"]): case for case in found["cases"]}
    every = list(backend.cases())
    # those of the package that is installed; for another, measure again
    assert on_file.keys() == {(case.kind, case.name) for case in every}
    light = [
        case for case in every
        if case.feed is not None and sum(a.size for a in case.feed.values()) < 1 << 10
        and not case.name.endswith("_expanded")
    ]
    chosen = np.random.default_rng(_SEED).choice(len(light), _SAMPLE, replace=False)
    for number in chosen:
        result = backend.measure(light[number], found["arch"])
        before = on_file[result.kind, result.name]
        assert (result.outcome, result.weights_inside) == (
            before["outcome"], before["weights_inside"]
        ), result.name  # fmt: skip
        assert result.outcome not in ("wrong", "fault")
        if result.outcome == "refused":
            assert backend_score.reason(result.why) == backend_score.reason(before["why"])


def test_how_results_are_judged() -> None:
    x = np.linspace(-1, 1, 50).astype(np.float32)
    case = case_of("Identity", x, x)
    assert backend.judge(case, [x]) == (True, None)
    good, decibels = backend.judge(case, [x + np.float32(0.01)])
    assert good
    assert decibels == pytest.approx(35.4, abs=0.1)
    assert backend.judge(case, [x + np.float32(0.1)])[0] is False
    assert backend.judge(case, [x[:4]]) == (False, None)
    assert backend.judge(case, [x.astype(np.float64)]) == (False, None)
    numbers = np.arange(5)
    case = Case("node", "integers", case.model, case.feed, (numbers,))
    assert backend.judge(case, [numbers])[0]
    assert not backend.judge(case, [numbers + 1])[0]


def test_what_is_no_sentence_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr(backend.VitrifyBackend, "prepare", fail)
    x = np.ones((1, 2), np.float32)
    result = backend.measure(case_of("Identity", x, x), "nano")
    assert result.outcome == "fault"
    assert result.why.startswith("KeyError: 'oh' (test_backend.py:")


def test_tables() -> None:
    def case(outcome: str, **facts: object) -> dict[str, object]:
        return {"kind": "node", "name": "c", "operators": ["Relu"], "outcome": outcome, "why": "",
                "weights_inside": False, "decibels": None, **facts}  # fmt: skip

    found = {"arch": "nano", "cases": [
        case("core"), case("core", weights_inside=True), case("parts"), case("no floats"),
        case("refused", why="Nor can it be cut: it has branches or loops."),
    ]}  # fmt: skip
    assert "| node | 5 | 1 | 1 | 1 | 0 | 1 | 0 | 1 |" in backend_score.outcomes(found)
    assert "| branches or loops | 1 |" in backend_score.reasons(found)
    assert "| `Relu` | 4 | 1 | 1 | 1 |  |" in backend_score.operators(found)


def test_results_on_file() -> None:
    found = backend_score.on_file()
    assert not [case for case in found["cases"] if case["outcome"] in ("wrong", "fault")]


def test_a_command_renews_its_cases(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["bench.backend", "^relu$", "--json"])
    x = np.linspace(-1, 1, 60).reshape(3, 4, 5).astype(np.float32)
    monkeypatch.setattr(backend, "cases", lambda: [
        Case("node", "relu", case_of("Relu", x, np.maximum(x, 0)).model, {"x": x},
             (np.maximum(x, 0),)),
    ])  # fmt: skip
    file = tmp_path / "backend" / "cases.json"
    monkeypatch.setattr(backend_score, "FILE", file)
    stays = {"kind": "node", "name": "other", "outcome": "refused"}
    backend_score.write({"arch": "kv260", "machine": {}, "cases": [
        stays, {"kind": "node", "name": "relu", "outcome": "wrong"},
    ]})  # fmt: skip
    backend.main()
    assert json.loads(capsys.readouterr().out)["outcome"] == "core"
    other, relu = backend_score.on_file()["cases"]
    assert other == stays
    assert relu["outcome"] == "core"
    with pytest.raises(ValueError, match="on file are of kv260, not of nano"):
        backend_score.renewed({"arch": "nano", "cases": []})
