"""Packages for Zynq boards: IP, constraints, a Tcl script for Vivado, FuseSoC, device tree."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from string import Template

from vitrify.arch.boards import ZYNQ_BOARDS, Board, Zynq
from vitrify.arch.boards import board as board_of
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ConfigError
from vitrify.arch.names import module_name, port_names

from . import ipxact
from .bitstream import constraints

#: Templates beside this file.
_TEMPLATES = Path(__file__).parent / "templates"
TIMING = "timing.xdc"
#: Of the first interrupt from the programmable logic: its pin, the label of the interrupt
#: controller in Linux's device tree, the number of the shared peripheral interrupt there
#: (UG585, table 7-4: 61; UG1085, table 13-1: 121; both count the 32 private ones before it).
_INTERRUPTS = {
    "zynq7": ("IRQ_F2P[0]", "intc", 61 - 32),
    "zynqmp": ("pl_ps_irq0[0]", "gic", 121 - 32),
}
#: What makes the bitstream loadable by Linux: input of bootgen, and what dfx-mgr reads (a design
#: of the whole fabric, without slots).
_FIRMWARE = {
    "vitrify.bif": "all:\n{\n    system.bit\n}\n",
    "shell.json": '{"shell_type": "XRT_FLAT", "num_slots": "1"}\n',
}
#: Bytes of the buffer in the device tree.
_BUFFER_BYTES = 64 << 20


def package(
    board_name: str, arch: ArchConfig, folder: Path, *, clock_mhz: float | None = None
) -> list[Path]:
    """Write everything that Vivado needs to make a bitstream of ``arch`` for a board.

    Parameters
    ----------
    board_name : one of :data:`vitrify.arch.boards.ZYNQ_BOARDS`
    arch : the core; its part must be the board's family
    folder : created if it is missing
    clock_mhz : clock of the core (default: the board's)

    Returns
    -------
    The files: ``ip/`` (Verilog, ``component.xml``, constraints of the core alone), ``build.tcl``,
    ``timing.xdc``, ``vitrify.dtso``, a FuseSoC ``.core``, and for UltraScale+ ``vitrify.bif`` and
    ``shell.json``, which make the bitstream a firmware of the kernel's FPGA manager.

    Raises
    ------
    ConfigError
        For an unknown board, or a core that does not suit it.
    """
    board, zynq = _zynq(board_name)
    if clock_mhz is not None:
        board = dataclasses.replace(board, clock_mhz=clock_mhz)
    board.require(arch)
    name, version = module_name(arch), ipxact.version()
    source, alone = ipxact.write(
        dataclasses.replace(arch, clock_mhz=board.clock_mhz), folder / "ip"
    )
    shutil.copyfile(constraints(board.name, TIMING), folder / TIMING)
    high = "0x0 " if zynq.family == "zynqmp" else ""
    pin, parent, interrupt = _INTERRUPTS[zynq.family]
    values = {
        "name": name, "version": version, "board": board.name, "part": arch.part.name,
        "board_part": zynq.board_part, "clock": f"{board.clock_mhz:g}",
        "clock_hz": str(round(board.clock_mhz * 1e6)),
        "registers": f"0x{zynq.registers:08x}", "register_bytes": f"0x{board.register_bytes:x}",
        "register_hex": f"{zynq.registers:x}", "memory_bytes": f"0x{zynq.memory_bytes:x}",
        "buffer_bytes": f"0x{_BUFFER_BYTES:x}", "block": ipxact.BLOCK,
        "vlnv": f"{ipxact.VENDOR}:{ipxact.LIBRARY}:{name}:{version}",
        "control": ipxact.REGISTERS, "irq": ipxact.INTERRUPT,
        # A ZynqMP has addresses of two cells.
        "reg": f"{high}0x{zynq.registers:08x} {high}0x{board.register_bytes:x}",
        "irq_pin": pin, "interrupt_parent": parent, "interrupt": str(interrupt),
        "hash": f"{arch.hash:08x}", "source": source.name, "ooc": alone.name, "timing": TIMING,
    }
    values |= _memory_ports(board, zynq, arch)
    system, fabric = (_fill(f"{zynq.family}.{kind}", values) for kind in ("tcl", "dtso"))
    for target, text in (
        ("build.tcl", _fill("build.tcl", values | {"system": system})),
        (f"{name}.core", _fill("fusesoc.core", values)),
        ("vitrify.dtso", _fill("overlay.dtso", values | {"fabric": fabric})),
        *(_FIRMWARE.items() if zynq.family == "zynqmp" else ()),
    ):
        (folder / target).write_text(text)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _zynq(name: str) -> tuple[Board, Zynq]:
    found = board_of(name)
    if found.zynq is None:
        raise ConfigError(f"{name} has no Zynq; the Zynq boards are {', '.join(ZYNQ_BOARDS)}")
    return found, found.zynq


def _memory_ports(found: Board, zynq: Zynq, arch: ArchConfig) -> dict[str, str]:
    """Tcl of the ports to memory: their settings, their clocks, and who is joined to whom."""
    settings, afi = [], []
    lists = {name: [] for name in ("core", "slaves", "clocks", "segments")}
    for name, number in zip(port_names(arch), found.ports.taken(arch.ports), strict=True):
        if zynq.family == "zynqmp":
            gp = number + 2     # the vendor's number of S_AXI_HP0_FPD
            settings += [(f"PSU__USE__S_AXI_GP{gp}", 1),
                         (f"PSU__SAXIGP{gp}__DATA_WIDTH", 8 * found.ports.bytes)]
            slave, clock = f"S_AXI_HP{number}_FPD", f"saxihp{number}_fpd_aclk"
            segment = f"SAXIGP{gp}/HP{number}_DDR_LOW"
            # Registers 4 and 5 are HP0's, to read and to write; 0 is 128 bits, 1 is 64, 2 is 32.
            code = (128 // (8 * found.ports.bytes)).bit_length() - 1
            afi += [f"<{2 * number + side} {code}>" for side in (4, 5)]
        else:
            settings += [(f"PCW_USE_S_AXI_HP{number}", 1),
                         (f"PCW_S_AXI_HP{number}_DATA_WIDTH", 8 * found.ports.bytes)]
            slave, clock = f"S_AXI_HP{number}", f"S_AXI_HP{number}_ACLK"
            segment = f"S_AXI_HP{number}/HP{number}_DDR_LOWOCM"
        for key, value in (("core", name), ("slaves", f"ps/{slave}"), ("clocks", f"ps/{clock}"),
                           ("segments", f"ps/{segment}")):
            lists[key].append(value)
    return {
        "port_settings": " \\\n    ".join(f"CONFIG.{key} {value}" for key, value in settings),
        "port_bits": str(8 * found.ports.bytes), "afi": ", ".join(afi),
        **{f"port_{key}": " ".join(values) for key, values in lists.items()},
    }


def _fill(template: str, values: dict[str, str]) -> str:
    """A template's text; ``@{name}`` stands for a value, since Tcl owns the dollar."""
    return _At((_TEMPLATES / template).read_text()).substitute(values)


class _At(Template):
    delimiter = "@"
