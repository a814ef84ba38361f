"""Verilator's opinion of an emitted core."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vitrify.cosim import toolchain

_WAIVERS = Path(__file__).parents[2] / "hw/lint/waivers.vlt"


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    """Run ``verilator --lint-only -Wall`` on a file that is called as its top module."""
    return subprocess.run(
        ["verilator", "--lint-only", "-Wall", str(_WAIVERS), "--top-module", source.stem,
         str(source)],
        env={**os.environ, **toolchain.verilator_environment()}, capture_output=True, text=True,
        check=False,
    )
