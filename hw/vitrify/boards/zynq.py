"""Packages for Zynq boards: IP, constraints, a Tcl script for Vivado, FuseSoC, device tree."""

from __future__ import annotations

import dataclasses
import re
import shutil
from importlib import metadata
from pathlib import Path
from string import Template

from vitrify.arch.boards import ZynqBoard, zynq_board
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ConfigError
from vitrify.rtl.emit import emit, module_name

from . import ipxact
from .bitstream import constraints

#: Templates beside this file.
_TEMPLATES = Path(__file__).parent / "templates"
TIMING = "timing.xdc"
#: Most beats of a burst on an AXI3 port (Zynq-7000).
_AXI3_BEATS = 16
#: Of the first interrupt from the programmable logic: its pin, the label of the interrupt
#: controller in Linux's device tree, the number of the shared peripheral interrupt there
#: (UG585, table 7-4: 61; UG1085, table 13-1: 121; both count the 32 private ones before it).
_INTERRUPTS = {
    "zynq7": ("IRQ_F2P[0]", "intc", 61 - 32),
    "zynqmp": ("pl_ps_irq0[0]", "gic", 121 - 32),
}
#: Bytes of the buffer in the device tree.
_BUFFER_BYTES = 64 << 20


def package(
    board_name: str, arch: ArchConfig, folder: Path, *, clock_mhz: float | None = None
) -> list[Path]:
    """Write everything that Vivado needs to make a bitstream of ``arch`` for a board.

    Parameters
    ----------
    board_name : of :data:`vitrify.arch.boards.ZYNQ_BOARDS`
    arch : the core; its part must be the board's family
    folder : created if it is missing
    clock_mhz : clock of the core (default: the board's)

    Returns
    -------
    The files: ``ip/`` (Verilog, ``component.xml``, constraints of the core alone), ``build.tcl``,
    ``timing.xdc``, ``vitrify.dtso`` and a FuseSoC ``.core``.

    Raises
    ------
    ConfigError
        For an unknown board, or a core that does not suit it.
    """
    board = zynq_board(board_name)
    if clock_mhz is not None:
        board = dataclasses.replace(board, clock_mhz=clock_mhz)
    _suits(board, arch)
    name, version = module_name(arch), _version()
    ip = folder / "ip"
    source = emit(arch, ip)
    alone = ip / f"{name}_ooc.xdc"
    alone.write_text(
        "# The core by itself: its clock, as the processing system gives it.\n"
        f"create_clock -name clk -period {1000 / board.clock_mhz:.3f} [get_ports clk]\n"
    )
    (ip / "component.xml").write_text(ipxact.component(
        arch, name, version, {source.name: "verilogSource", alone.name: "xdc"}
    ))
    shutil.copyfile(constraints(board.name, TIMING), folder / TIMING)
    high = "0x0 " if board.family == "zynqmp" else ""
    pin, parent, interrupt = _INTERRUPTS[board.family]
    values = {
        "name": name, "version": version, "board": board.name, "part": arch.part.name,
        "board_part": board.board_part, "clock": f"{board.clock_mhz:g}",
        "registers": f"0x{board.registers:08x}", "register_bytes": f"0x{board.register_bytes:x}",
        "register_hex": f"{board.registers:x}", "memory_bytes": f"0x{board.memory_bytes:x}",
        "buffer_bytes": f"0x{_BUFFER_BYTES:x}", "block": ipxact.BLOCK,
        "vlnv": f"{ipxact.VENDOR}:{ipxact.LIBRARY}:{name}:{version}",
        "memory": ipxact.MEMORY, "control": ipxact.REGISTERS, "irq": ipxact.INTERRUPT,
        # A ZynqMP has addresses of two cells.
        "reg": f"{high}0x{board.registers:08x} {high}0x{board.register_bytes:x}",
        "irq_pin": pin, "interrupt_parent": parent, "interrupt": str(interrupt),
        "hash": f"{arch.hash:08x}", "source": source.name, "ooc": alone.name, "timing": TIMING,
    }
    system = _fill(f"{board.family}.tcl", values)
    for target, text in (
        ("build.tcl", _fill("build.tcl", values | {"system": system})),
        (f"{name}.core", _fill("fusesoc.core", values)),
        ("vitrify.dtso", _fill("overlay.dtso", values)),
    ):
        (folder / target).write_text(text)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _suits(board: ZynqBoard, arch: ArchConfig) -> None:
    families = {"zynq7": "xc7", "zynqmp": "xcup"}
    if arch.part.family != families[board.family]:
        raise ConfigError(
            f"arch {arch.name!r} is for the part {arch.part.name}, which {board.name} has not"
        )
    if board.family == "zynq7" and arch.burst_beats > _AXI3_BEATS:
        raise ConfigError(
            f"arch {arch.name!r}: the memory ports of {board.name} take bursts of "
            f"{_AXI3_BEATS} beats, not {arch.burst_beats}; set burst_beats"
        )


def _fill(template: str, values: dict[str, str]) -> str:
    """A template's text; ``@{name}`` stands for a value, since Tcl owns the dollar."""
    return _At((_TEMPLATES / template).read_text()).substitute(values)


class _At(Template):
    delimiter = "@"


def _version() -> str:
    """Two numbers: all that Vivado takes."""
    try:
        found = re.match(r"\d+\.\d+", metadata.version("vitrify"))
    except metadata.PackageNotFoundError:
        found = None
    return found.group() if found else "0.0"
