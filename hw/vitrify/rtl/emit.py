"""ArchConfig to files: Verilog, manifest and a C header of the registers."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from vitrify.arch import csr
from vitrify.arch.c_header import HEADER, c_header
from vitrify.arch.config import CONTRACT_VERSION, ArchConfig
from vitrify.arch.names import module_name
from vitrify.rtl.lib.shared import to_verilog
from vitrify.rtl.wrapper import Wrapper

MANIFEST = "manifest.json"


def emit(arch: ArchConfig, directory: Path, *, trace: bool = False) -> Path:
    """Write the core as ``<name>.v`` with ``manifest.json`` and ``vitrify_regs.h`` beside it.

    Equal architectures and versions give equal files.

    Parameters
    ----------
    arch : ArchConfig
    directory : Path
        Created if it is missing.
    trace : bool
        With the simulation outputs ``trace_*``.

    Returns
    -------
    Path
        The Verilog file; its top module is :func:`module_name`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    name = module_name(arch)
    source = directory / f"{name}.v"
    source.write_text(verilog(arch, trace=trace))
    (directory / HEADER).write_text(c_header(arch))
    text = json.dumps(manifest(arch, trace=trace), indent=2)
    (directory / MANIFEST).write_text(text + "\n")
    return source


def verilog(arch: ArchConfig, *, trace: bool = False) -> str:
    """The core as Verilog text, the same for every run."""
    return to_verilog(Wrapper(arch, trace=trace), module_name(arch), arch.part.family)


def manifest(arch: ArchConfig, *, trace: bool = False) -> dict[str, Any]:
    """What the emitted core is, as plain data."""
    name = module_name(arch)
    return {
        "name": arch.name,
        "top": name,
        "files": {"verilog": f"{name}.v", "header": HEADER},
        "arch": arch.to_dict(),
        "arch_hash": f"{arch.hash:08x}",
        "contract_version": CONTRACT_VERSION,
        "trace": trace,
        "versions": {package: _version(package) for package in ("vitrify", "amaranth")},
        "registers": {
            register.name: {"offset": register.offset, "access": register.access.value}
            for register in csr.REGISTERS
        },
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"    # run from a checkout that is not installed
