"""The table of mutants and its runner, without a survey."""

from __future__ import annotations

from tests.mutants import __main__ as mutants


def test_every_mutant_has_a_file_and_tests():
    for mutant in mutants.table():
        assert mutant.old != mutant.new
        assert (mutants.ROOT / mutant.path).is_file(), mutant
        files = [test.partition("::")[0] for test in mutant.tests]
        assert all((mutants.ROOT / file).exists() for file in files), files


def test_a_survey_tells_killed_from_surviving_and_stale(tmp_path, monkeypatch):
    """On a project of one line with one test."""
    (tmp_path / "sw").mkdir()
    (tmp_path / "sw" / "sums.py").write_text("def double(x):\n    return x + x  # twice\n")
    (tmp_path / "test_sums.py").write_text(
        "import sums\n\n\ndef test_double():\n    assert sums.double(3) == 6\n"
    )
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "COPIED", ("sw", "test_sums.py"))
    monkeypatch.setattr(mutants, "NEAREST", {"sw": ("test_sums.py",)})
    mutants.sound.cache_clear()
    assert mutants.sound("test_sums.py")
    assert not mutants.sound("test_missing.py")
    mutants.sound.cache_clear()
    for old, new, reason, result in (
        ("x + x", "x - x", "", ("killed", "test_sums.py")),
        ("# twice", "# 2 x", "", ("survives", "")),
        ("# twice", "# 2 x", "a comment", ("equivalent", "a comment")),
        ("x * x", "x", "", ("stale", "")),
    ):
        assert mutants.survey(mutants.Mutant("sw/sums.py", old, new, reason)) == result
