"""The command line without what is not installed, and at its edges: interrupts, pipes, disks."""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.unit.program.cases import copy_program
from vitrify.arch.extras import EXTRAS
from vitrify.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[3]
PATH = os.pathsep.join(str(ROOT / room) for room in ("hw", "sw", "sim"))
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from vitrify.cli.main import main
sys.exit(main({arguments!r}))
"""


def without(packages, *arguments, cwd=ROOT):
    """The command line where ``packages`` are not installed."""
    code = BLOCKER.format(blocked=list(packages), arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATH}, cwd=cwd,
        capture_output=True, text=True, check=False,
    )


def test_help_needs_nothing_and_takes_no_time():
    packages = [*EXTRAS, "numpy"]
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = without(packages, "--help")
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)
    assert end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime < 0.25
    assert without(packages, "--version").returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help_without_extras(command):
    done = without(EXTRAS, command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: vitrify {command}" in done.stdout


def test_the_lines_of_help_are_those_of_the_commands():
    class Commands:
        def add_parser(self, name, help, **settings):  # noqa: A002
            assert COMMANDS[name] == help
            return argparse.ArgumentParser(prog=name, **settings)

    for name in COMMANDS:
        importlib.import_module(f"vitrify.cli.{name}").register(Commands())


@pytest.mark.parametrize(("arguments", "extra"), [
    (("emit", "--arch", "nano", "-o", "out"), "hw|cli"),
    (("compile", "model.onnx", "--arch", "nano", "--calib", "x.npy"), "compiler"),
    (("run", "copy.vfy", "--input", "x.npy"), "cli"),
    (("run", "model.onnx", "--backend", "float", "--input", "x.npy"), "cli|compiler"),
    (("estimate", "model.onnx", "--arch", "nano"), "compiler"),
    (("info", "model.onnx"), "compiler"),
    (("info", "nano"), "cli"),
    (("info", "x.yaml"), "cli"),
    (("synth", "--arch", "nano"), "hw|cli|synth"),
    (("build", "--board", "kv260"), "hw|cli"),
    (("serve",), "hw|sim|cli"),
])
def test_commands_name_the_extra_that_they_lack(arguments, extra, tmp_path):
    copy_program().save(tmp_path / "copy.vfy")
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "x.yaml").write_text("base: nano\n")
    done = without(EXTRAS, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    found = done.stderr.split("pip install 'vitrify[")[1].split("]")[0].split(",")
    # What one command lacks comes with one installation: every command draws tables.
    if "needs the package" in done.stderr:
        assert "cli" in found, done.stderr
    assert {*found, "cli"} in [{one, "cli"} for one in extra.split("|")], done.stderr


def test_sessions_name_the_extra_that_they_lack(tmp_path):
    copy_program().save(tmp_path / "copy.vfy")
    code = BLOCKER.format(blocked=list(EXTRAS), arguments=[]).replace(
        "from vitrify.cli.main import main\nsys.exit(main([]))", """
from vitrify.runtime import InferenceSession
from vitrify.arch.errors import BackendError
InferenceSession("copy.vfy")
for name in ("rtl", "board:simulation", "board:ulx3s?port=x"):
    try:
        InferenceSession("copy.vfy", name)
    except Exception as error:
        assert "pip install 'vitrify[" in str(error), error
""")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATH}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr


def test_describe_needs_nothing():
    assert without(EXTRAS, "describe").returncode == 0


def test_extras_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) <= extras["optional-dependencies"].keys()


def test_interrupt_while_importing(tmp_path):
    code = BLOCKER.format(blocked=[], arguments=["info", "nano"]).replace(
        "        if name", "        if name == 'numpy':\n            raise KeyboardInterrupt\n"
        "        if name",
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True, text=True, check=False,
    )
    assert (done.returncode, done.stderr) == (130, "vitrify: interrupted\n")


def test_broken_pipe():
    process = subprocess.Popen(
        [sys.executable, "-m", "vitrify.cli", "describe"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PATH}, cwd=ROOT,
    )
    process.stdout.read(10)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 0
    assert errors == b""


def test_full_disk():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "vitrify.cli", "info", "nano", "--json"], stdout=full,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PATH}, cwd=ROOT, check=False,
        )
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr


def test_no_stdout():
    line = f"exec {sys.executable} -m vitrify.cli info nano >&-"
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, "PYTHONPATH": PATH}, cwd=ROOT, check=False,
        capture_output=True,
    )
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr


def test_a_name_that_is_too_long(capsys):
    assert main(["info", f"{'x' * 5000}.onnx"]) == 2
    assert "internal" not in capsys.readouterr().err
