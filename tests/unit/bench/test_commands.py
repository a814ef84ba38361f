"""``python -m bench.commands``: a command is measured in a process of its own, or said to fail."""

from __future__ import annotations

import pytest

from bench.commands import commands, cost


def test_a_command_is_measured(tmp_path):
    found = cost(commands()["help"], tmp_path)
    assert 0 < found.seconds < 30
    assert 10 < found.memory < 1000


def test_a_command_that_fails_is_no_measurement(tmp_path):
    with pytest.raises(RuntimeError, match=r"vitrify emit --arch nothing failed: .*nothing"):
        cost(["emit", "--arch", "nothing"], tmp_path)
