"""The exported testbench around the emitted core, under Icarus and Verilator, nothing else."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess

import pytest

from tests.support.boards import small_program
from tests.support.simulators import SIMULATORS
from tests.support.tools import need
from vitrify.arch.names import module_name
from vitrify.arch.presets import preset
from vitrify.cosim import toolchain
from vitrify.export import Run, export_files
from vitrify.program import pack_input
from vitrify.program.files import write_folder
from vitrify.rtl.emit import emit
from vitrify.rtl.lib.memories import SIMULATION
from vitrify.runtime.backends.golden import GoldenBackend

pytestmark = pytest.mark.slow
#: As small as a core can be that runs the tiny model; two ports, so that both are joined.
ARCH = dataclasses.replace(
    preset("nano"), name="testbench", patterns=False, addends=False, products=False,
    row_sums=False, experts=0, stored_weights=False, bus_bytes=8, ports=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The emitted core and an exported picture."""
    made = tmp_path_factory.mktemp("testbench")
    program, feed, _ = small_program(ARCH)
    images, = feed.values()
    regions = pack_input(ARCH, program.input, images[:1])
    golden, _ = GoldenBackend(program).execute(regions, [0], 1)
    write_folder(made, export_files(program, Run(regions, (0,), golden)))
    emit(ARCH, made)
    return made


def built(simulator, folder, text="testbench.v"):
    """What runs the testbench, by the command that stands at its top."""
    core = f"{module_name(ARCH)}.v"
    if simulator == "icarus":
        subprocess.run(
            ["iverilog", "-g2012", f"-D{SIMULATION}", "-o", "run", text, core],
            cwd=folder, check=True, timeout=120, capture_output=True,
        )
        return ["vvp", "run"]
    variables = toolchain.verilator_environment()
    variables["MAKEFLAGS"] += " CFG_CXXFLAGS_COROUTINES=-fcoroutines"
    variables["MAKEFLAGS"] = variables["MAKEFLAGS"].replace("gnu++17", "gnu++20")
    subprocess.run(
        ["verilator", "--binary", "--timing", "-Wno-fatal", "--top-module", "testbench",
         "-CFLAGS", "-O0", text, core],
        cwd=folder, env={**os.environ, **variables}, check=True, timeout=600, capture_output=True,
    )
    return ["obj_dir/Vtestbench"]


def run(command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False,
                          timeout=600)


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_outputs_are_goldens(simulator, folder):
    command = built(simulator, folder)
    done = run(command, folder)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^PASS 1 jobs equal golden, \d+ cycles$", done.stdout, re.M)
    if simulator == "icarus":
        return  # a second run takes as long as the first
    outputs = folder / "output.mem"
    right, mask = outputs.read_text(), (folder / "output_mask.mem").read_text()
    # A result, and what fills up its word.
    for digit, code in (("f", 1), ("0", 0)):
        place = mask.index(digit)
        outputs.write_text(
            f"{right[:place]}{int(right[place], 16) ^ 1:x}{right[place + 1:]}"
        )
        try:
            done = run(command, folder)
        finally:
            outputs.write_text(right)
        assert (done.returncode != 0) == code
        assert ("FAIL 1 words of the outputs differ from golden" in done.stdout) == code


def test_what_differs_fails(folder):
    need("iverilog", "iverilog")
    text = (folder / "testbench.v").read_text()
    wanted = f"{ARCH.hash:08x}"
    (folder / "other.v").write_text(text.replace(wanted, "00000000"))
    done = run(built("icarus", folder, "other.v"), folder)
    assert done.returncode != 0
    assert f"FAIL register 0x008 reads 0x{wanted}, not 0x00000000" in done.stdout
    # The core may read nothing: it stops at once, and says why.
    (folder / "shut.v").write_text(re.sub(r"32'h\w+\); // READ_LIMIT_LO", "32'h0);", text))
    done = run(built("icarus", folder, "shut.v"), folder)
    assert "FAIL the core stopped: ERROR_CODE 5" in done.stdout
    assert done.returncode != 0
    (folder / "dead.v").write_text(text.replace(".rst(rst)", ".rst(1'b1)"))
    done = run(built("icarus", folder, "dead.v"), folder)
    assert "FAIL the registers do not answer" in done.stdout
    assert done.returncode != 0
