"""Cycles of an older core beside today's, under the memory of then."""

from __future__ import annotations

import json
import sys

import pytest

from bench import compare

THEN = {"model": "digits_vit", "arch": "nano", "cycles": 22_955}


def test_digits_are_no_slower_than_on_the_core_of_plain_vits():
    found = compare.pair(THEN, rtl=False)
    assert found is not None
    assert found.then == 22_955
    assert -0.05 < found.change <= 0.005


@pytest.mark.parametrize(
    "other", [{"conditions": {}}, {"arch": "colorlight-i9"}], ids=["of a board", "of a new preset"]
)
def test_only_results_of_ideal_memory_are_compared(other, monkeypatch):
    files = {"a.json": THEN | other, "b.json": THEN}

    def git(command, *arguments):
        if command == "ls-tree":
            return "\n".join([*files, "c.png"])
        return json.dumps(files[arguments[0].partition(":")[2]])

    monkeypatch.setattr(compare, "_git", git)
    assert list(compare.results("3851c42")) == [THEN]


def test_a_commit_that_there_is_not(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.compare", "no-such-commit"])
    with pytest.raises(SystemExit):
        compare.main()
    assert "commit 'no-such-commit': fatal:" in capsys.readouterr().err


def test_a_commit_without_such_results(monkeypatch, capsys):
    monkeypatch.setattr(compare, "_git", lambda *_: "")
    monkeypatch.setattr(sys, "argv", ["bench.compare", "first"])
    with pytest.raises(SystemExit):
        compare.main()
    assert "commit 'first' has no result of an ideal memory" in capsys.readouterr().err
