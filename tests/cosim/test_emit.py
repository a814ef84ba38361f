"""Emitted files: the same every time, lint-clean, and of one mind with the contract."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lint import lint
from vitrify.arch import csr
from vitrify.arch.c_header import HEADER, c_header
from vitrify.arch.config import ArchConfig
from vitrify.arch.names import module_name, port_names
from vitrify.arch.presets import PRESETS, preset
from vitrify.rtl.emit import MANIFEST, emit

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PRESETS)
def test_files(name, tmp_path):
    arch = preset(name)
    source = emit(arch, tmp_path / "a")
    assert source.stem == module_name(arch)
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_text())
    assert ArchConfig.from_dict(manifest["arch"]) == arch
    assert int(manifest["arch_hash"], 16) == arch.hash
    result = lint(source)
    assert result.returncode == 0, result.stderr[:2000]
    text = source.read_text()
    ports = re.search(rf"^module {source.stem}\((.*?)\);", text, re.M | re.S)
    assert ports is not None
    memory = {f"{port}_araddr" for port in port_names(arch)}
    assert {"clk", "rst", "irq", "s_axi_awaddr", *memory} <= set(re.findall(r"\w+", ports[1]))
    assert "trace_" not in ports[1]
    # Only tables have contents at power-on.
    for block in re.findall(r"^  initial begin\n(.*?)^  end\n", text, re.M | re.S):
        assert re.search(r"'(h0*[1-9a-f]|d[1-9])", block), block[:200]
    # Lint sees mistakes in spite of the waivers.
    source.write_text(text.replace("\nendmodule", "\n  assign irk = clk;\nendmodule", 1))
    assert lint(source).returncode != 0


def test_same_text_in_another_process():
    program = (
        "import hashlib\nfrom vitrify.arch.presets import preset\n"
        "from vitrify.rtl.emit import verilog\n"
        "print(hashlib.sha256(verilog(preset('nano')).encode()).hexdigest())"
    )
    path = os.pathsep.join(str(ROOT / room) for room in ("hw", "sw", "sim"))
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        ).stdout for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


@pytest.mark.parametrize("arch", PRESETS.values(), ids=PRESETS)
def test_header(arch):
    header = c_header(arch)
    for register in csr.REGISTERS:
        assert f"#define VITRIFY_{register.name} 0x{register.offset:03x}u" in header
    assert HEADER.endswith(".h")
    assert f"0x{arch.hash:08x}u" in header
