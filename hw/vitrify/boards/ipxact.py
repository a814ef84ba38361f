"""The core as an IP-XACT component (IEEE 1685-2009, the edition that Vivado reads)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from amaranth.hdl import Shape
from amaranth.lib.wiring import Flow, Out

from vitrify.arch import csr
from vitrify.arch.config import ArchConfig
from vitrify.arch.csr import Access
from vitrify.arch.names import module_name, port_names
from vitrify.rtl.bus.axi import axi4, axi4_lite, flat_ports
from vitrify.rtl.bus.stripe import port_arch
from vitrify.rtl.emit import emit

NAMESPACE = "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"
VENDOR, LIBRARY = "vitrify", "vitrify"
#: Names inside the component that scripts refer to.
REGISTERS, INTERRUPT = "s_axi", "irq"
MEMORY_MAP, BLOCK = "s_axi", "registers"
_ACCESS = {
    Access.RO: "read-only", Access.RW: "read-write", Access.WO: "write-only",
    Access.W1C: "read-write",
}


def _add(parent: ET.Element, tag: str, text: object = None, **attributes: str) -> ET.Element:
    made = ET.SubElement(
        parent, f"{{{NAMESPACE}}}{tag}",
        {f"{{{NAMESPACE}}}{name}": value for name, value in attributes.items()},
    )
    if text is not None:
        made.text = str(text)
    return made


def version() -> str:
    """Two numbers: all that Vivado takes."""
    try:
        found = re.match(r"\d+\.\d+", metadata.version("vitrify"))
    except metadata.PackageNotFoundError:
        found = None
    return found.group() if found else "0.0"


def write(arch: ArchConfig, folder: Path) -> tuple[Path, Path]:
    """Make ``folder`` an IP of Vivado: Verilog, ``component.xml``, the clock of the core alone.

    Returns
    -------
    The Verilog and the constraints.
    """
    name = module_name(arch)
    source = emit(arch, folder)
    alone = folder / f"{name}_ooc.xdc"
    alone.write_text(
        "# The core by itself: its clock, as what is around it gives it.\n"
        f"create_clock -name clk -period {1000 / arch.clock_mhz:.3f} [get_ports clk]\n"
    )
    (folder / "component.xml").write_text(component(
        arch, name, version(), {source.name: "verilogSource", alone.name: "xdc"}
    ))
    return source, alone


def component(arch: ArchConfig, name: str, number: str, files: Mapping[str, str]) -> str:
    """``component.xml`` of the core.

    Parameters
    ----------
    arch : ArchConfig
    name : of the component and of its top module
    number : of the version, as :func:`version` gives it
    files : name and IP-XACT file type of each file, relative to the component
    """
    ET.register_namespace("spirit", NAMESPACE)
    root = ET.Element(f"{{{NAMESPACE}}}component")
    for tag, text in (
        ("vendor", VENDOR), ("library", LIBRARY), ("name", name), ("version", number),
    ):
        _add(root, tag, text)
    ports = _ports(arch)
    interfaces = _add(root, "busInterfaces")
    memories = port_names(arch)
    for memory in memories:
        _memory(interfaces, ports, arch, memory)
    _registers(interfaces, ports)
    _single(interfaces, "clk", "clock", "CLK", "slave", {
        "ASSOCIATED_BUSIF": ":".join((*memories, REGISTERS)), "ASSOCIATED_RESET": "rst",
    })
    _single(interfaces, "rst", "reset", "RST", "slave", {"POLARITY": "ACTIVE_HIGH"})
    _single(interfaces, INTERRUPT, "interrupt", "INTERRUPT", "master", {
        "SENSITIVITY": "LEVEL_HIGH",
    })
    spaces = _add(root, "addressSpaces")
    for memory in memories:
        space = _add(spaces, "addressSpace")
        _add(space, "name", memory)
        _add(space, "range", f"0x{1 << ports[f'{memory}_araddr'][1]:x}")
        _add(space, "width", 8 * arch.port_bytes)
    _memory_map(root)
    model = _add(root, "model")
    views = _add(model, "views")
    for view, environment in (
        ("synthesis", ":vivado.xilinx.com:synthesis"),
        ("simulation", ":vivado.xilinx.com:simulation"),
    ):
        made = _add(views, "view")
        _add(made, "name", view)
        _add(made, "envIdentifier", environment)
        _add(made, "language", "verilog")
        _add(made, "modelName", name)
        _add(_add(made, "fileSetRef"), "localName", "sources")
    listed = _add(model, "ports")
    for port, (outward, width) in ports.items():
        made = _add(listed, "port")
        _add(made, "name", port)
        wire = _add(made, "wire")
        _add(wire, "direction", "out" if outward else "in")
        if width > 1:
            vector = _add(wire, "vector")
            _add(vector, "left", width - 1)
            _add(vector, "right", 0)
    sources = _add(_add(root, "fileSets"), "fileSet")
    _add(sources, "name", "sources")
    for file, kind in files.items():
        made = _add(sources, "file")
        _add(made, "name", file)
        known = kind in ("verilogSource", "systemVerilogSource")
        _add(made, "fileType" if known else "userFileType", kind)
    _add(root, "description", (
        f"Vitrify core {arch.name}: {arch.macs} multiply-accumulates a cycle, "
        f"arch hash {arch.hash:08x}"
    ))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _ports(arch: ArchConfig) -> dict[str, tuple[bool, int]]:
    """Name, whether it is an output, width; clock and reset first."""
    members = {
        **{name: member for memory in port_names(arch)
           for name, member in flat_ports(memory, axi4(port_arch(arch))).items()},
        **flat_ports(REGISTERS, axi4_lite().flip()),
        INTERRUPT: Out(1),
    }
    return {"clk": (False, 1), "rst": (False, 1)} | {
        name: (member.flow is Flow.Out, Shape.cast(member.shape).width)
        for name, member in members.items()
    }


def _bus(parent: ET.Element, name: str, library: str, bus: str) -> ET.Element:
    made = _add(parent, "busInterface")
    _add(made, "name", name)
    _add(made, "busType", vendor="xilinx.com", library=library, name=bus, version="1.0")
    _add(made, "abstractionType", vendor="xilinx.com", library=library, name=f"{bus}_rtl",
         version="1.0")
    return made


def _maps(bus: ET.Element, pairs: Mapping[str, str]) -> None:
    maps = _add(bus, "portMaps")
    for logical, physical in pairs.items():
        made = _add(maps, "portMap")
        _add(_add(made, "logicalPort"), "name", logical)
        _add(_add(made, "physicalPort"), "name", physical)


def _parameters(bus: ET.Element, owner: str, values: Mapping[str, object]) -> None:
    parameters = _add(bus, "parameters")
    for name, value in values.items():
        made = _add(parameters, "parameter")
        _add(made, "name", name)
        _add(made, "value", value, id=f"BUSIFPARAM_VALUE.{owner.upper()}.{name}")


def _axi(ports: Mapping[str, tuple[bool, int]], prefix: str) -> dict[str, str]:
    start = f"{prefix}_"
    return {p.removeprefix(start).upper(): p for p in ports if p.startswith(start)}


def _memory(
    interfaces: ET.Element, ports: Mapping[str, tuple[bool, int]], arch: ArchConfig, name: str
) -> None:
    bus = _bus(interfaces, name, "interface", "aximm")
    _add(_add(bus, "master"), "addressSpaceRef", addressSpaceRef=name)
    _maps(bus, _axi(ports, name))
    _parameters(bus, name, {
        "PROTOCOL": "AXI4", "DATA_WIDTH": 8 * arch.port_bytes, "MAX_BURST_LENGTH": arch.port_beats,
        "SUPPORTS_NARROW_BURST": 0, "NUM_READ_OUTSTANDING": arch.outstanding,
        "NUM_WRITE_OUTSTANDING": arch.outstanding,
    })


def _registers(interfaces: ET.Element, ports: Mapping[str, tuple[bool, int]]) -> None:
    bus = _bus(interfaces, REGISTERS, "interface", "aximm")
    _add(_add(bus, "slave"), "memoryMapRef", memoryMapRef=MEMORY_MAP)
    _maps(bus, _axi(ports, REGISTERS))
    _parameters(bus, REGISTERS, {"PROTOCOL": "AXI4LITE", "DATA_WIDTH": 32})


def _single(
    interfaces: ET.Element, port: str, bus: str, logical: str, role: str,
    parameters: Mapping[str, object],
) -> None:
    made = _bus(interfaces, port, "signal", bus)
    _add(made, role)
    _maps(made, {logical: port})
    _parameters(made, port, parameters)


def _memory_map(root: ET.Element) -> None:
    memory_map = _add(_add(root, "memoryMaps"), "memoryMap")
    _add(memory_map, "name", MEMORY_MAP)
    block = _add(memory_map, "addressBlock")
    for tag, text in (
        ("name", BLOCK), ("baseAddress", "0x0"), ("range", f"0x{1 << csr.CSR_ADDRESS_BITS:x}"),
        ("width", 32), ("usage", "register"),
    ):
        _add(block, tag, text)
    for register in csr.REGISTERS:
        made = _add(block, "register")
        _add(made, "name", register.name)
        _add(made, "description", register.doc)
        _add(made, "addressOffset", f"0x{register.offset:x}")
        _add(made, "size", 32)
        _add(made, "access", _ACCESS[register.access])
        for field in register.fields:
            part = _add(made, "field")
            _add(part, "name", field.name)
            _add(part, "description", field.doc)
            _add(part, "bitOffset", field.lsb)
            _add(part, "bitWidth", field.bits)
            if register.access is Access.W1C:
                _add(part, "modifiedWriteValue", "oneToClear")
