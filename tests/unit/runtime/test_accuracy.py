"""Scores, divergence, and the tables of labels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.program.cases import copy_program
from vitrify.arch.errors import InputError
from vitrify.runtime import routing
from vitrify.runtime.accuracy import agreement, check_labels, read_labels, scores, top


def test_top():
    logits = np.array([[3.0, 1, 2, 0, -1, -2], [0, 0, 0, 0, 0, 0], [0, 5, 4, 3, 2, 1]])
    assert top(logits, np.array([0, 0, 1])) == 1
    assert top(logits, np.array([2, 1, 0])) == 0  # of equals, the first wins
    assert top(logits, np.array([2, 1, 0]), 2) == pytest.approx(2 / 3)
    assert scores(logits, np.array([4, 5, 0])) == {
        "top1": 0, "top5": pytest.approx(1 / 3),
        "top1_interval": pytest.approx((0, 0.5615), abs=1e-4),
    }


def test_agreement():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 10))
    assert agreement(logits, logits + 7) == {
        "agreement": 1, "kl": pytest.approx(0, abs=1e-12),
        "kl_interval": pytest.approx((0, 0), abs=1e-12),
    }
    found = agreement(logits, -logits)
    assert found["agreement"] == 0
    # By the definition.
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (logits, -logits))
    assert found["kl"] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean())


def test_labels_of_a_split(tmp_path):
    (tmp_path / "eval").mkdir()
    for name in ("a.png", "eval/b.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    table = tmp_path / "labels.csv"
    table.write_text("split,file,label\ncalib,a.png,3\neval,b.png,5\neval,c.png,0\n")
    found = read_labels(tmp_path, table, "eval")
    assert [(p.file.name, p.label) for p in found] == [("b.png", 5), ("c.png", 0)]
    assert len(read_labels(tmp_path, table)) == 3
    with pytest.raises(InputError, match="no pictures of the split 'test'"):
        read_labels(tmp_path, table, "test")


@pytest.mark.parametrize(("text", "message"), [
    ("file,name\na.png,3\n", "no column 'label'; it needs file, label, split"),
    ("split,file,label\neval,a.png,cat\n", "line 2 of .*: 'cat' is not the number of a class"),
    ("split,file,label\neval,a.png,-4\n", "'-4' is not the number of a class"),
    ("split,file,label\neval,a.png\n", "line 2 of .*: None is not the number of a class"),
    ("split,file,label\neval,b.png,1\n", "line 2 of .* names 'b.png', which is not in"),
    ("split,file,label\neval,a.png," + "9" * 5000, "'9+\\.\\.\\.9+' is not the number of a class"),
    ("split,file,label\neval,a.png,99999999999", "is not the number of a class"),
    ("split,file,label\neval,/etc/passwd,1\n", "names '/etc/passwd', outside of"),
    ("split,file,label\neval,../a.png,1\n", "names '../a.png', outside of"),
    (f"split,file,label\neval,{'x' * 5000},1\n", "names 'xxx.*, which is not in"),
    ("split,file,label\n", "has no pictures of the split 'eval'"),
    ("", "no column 'file'"),
])
def test_wrong_tables(tmp_path, text, message):
    (tmp_path / "a.png").write_bytes(b"")
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path, table, "eval")


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot read the labels"):
        read_labels(tmp_path, tmp_path / "gone.csv")
    with pytest.raises(InputError, match="there is no directory"):
        read_labels(tmp_path / "gone", tmp_path / "gone.csv")
    with pytest.raises(InputError, match="a label 10, and the model knows the classes 0 to 9"):
        check_labels(np.array([1, 10]), 10)


@pytest.mark.parametrize("text", [
    "{", "[" * 100_000, "[]", '{"replay": {"counts": [[Infinity]]}}',
    '{"replay": {"counts": [["1"]]}}', '{"replay": {"counts": [[-1, 2]]}}',
    '{"replay": {"counts": [[' + "9" * 5000 + "]]}}", '{"replay": {"counts": 3}}',
])
def test_routings_that_are_none(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=r"'.*r\.json' is no routing"):
        routing.read(tmp_path / "r.json", copy_program())
