"""Scripts that complete the command line, and what the user meant."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.command import vitrify
from vitrify.cli.main import COMMANDS

_ASK = """
source "$1"
shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_vitrify vitrify "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(script: Path, *words: str) -> set[str]:
    done = subprocess.run(["bash", "-c", _ASK, "bash", script, "vitrify", *words], check=True,
                          capture_output=True, text=True, cwd=script.parent)
    return set(done.stdout.split())


def test_bash_completes(tmp_path, capsys):
    script = tmp_path / "complete.bash"
    script.write_text(vitrify(capsys, "completion", "bash"))
    assert set(COMMANDS) <= completed(script, "")
    assert completed(script, "est") == {"estimate"}
    assert {"--board", "--budget"} & completed(script, "estimate", "--b") == {"--board"}
    assert "--budget" in completed(script, "explore", "--bu")


def test_zsh_has_every_command(capsys):
    script = vitrify(capsys, "completion", "zsh")
    assert script.startswith("#compdef vitrify")
    assert all(command in script for command in COMMANDS)


@pytest.mark.parametrize(("arguments", "meant"), [
    (("estimat", "x.vfy"), "estimate"), (("complie", "x.onnx"), "compile"),
    (("estimate", "x.vfy", "--bord", "kv260"), "--board"),
    (("run", "x.vfy", "--input", "x.npy", "--perfeto", "t.json"), "--perfetto"),
    (("report", "x.vfy", "--comparre=y"), "--compare"),
    (("arch", "new", "x.yaml", "--fron", "nano"), "--from"),
], ids=str)
def test_did_you_mean(capsys, arguments, meant):
    said = vitrify(capsys, *arguments, code=2)
    assert f"(did you mean {meant}?)" in said
    assert "choose from" not in said


def test_what_a_command_does_not_know_is_its_own_error(capsys):
    # --version is one of `vitrify`, and the nearest of all; `explore` has no such option
    said = vitrify(capsys, "explore", "x.onnx", "--part", "kv260", "--designs", "1", code=2)
    assert "--version" not in said
    assert "see `vitrify explore --help`" in said


@pytest.mark.parametrize("arguments", [("qqq",), ("estimate", "x.vfy", "--qqq"), ("run",)], ids=str)
def test_nothing_like_it(capsys, arguments):
    said = vitrify(capsys, *arguments, code=2)
    assert "did you mean" not in said
    assert ("choose from" in said) == (arguments == ("qqq",))
