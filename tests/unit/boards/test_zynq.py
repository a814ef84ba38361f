"""Zynq packages: everything agrees with the contract, and the scripts are what tools accept.

No vendor tool is here: the XML is held against the order of elements of IEEE 1685-2009, the Tcl is
run by a Tcl interpreter whose unknown commands only take notes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from tests.support.tools import need
from vitrify.arch import csr
from vitrify.arch.boards import BOARDS, ZYNQ_BOARDS
from vitrify.arch.c_header import c_header
from vitrify.arch.errors import ConfigError
from vitrify.arch.load import load as load_arch
from vitrify.arch.names import module_name, port_names
from vitrify.arch.presets import preset
from vitrify.boards import ipxact
from vitrify.boards.zynq import package
from vitrify.cli.main import main
from vitrify.driver.pynq import IP_TYPE

ROOT = Path(__file__).resolve().parents[3]
SPIRIT = f"{{{ipxact.NAMESPACE}}}"
_COMPONENT = (
    "vendor library name version busInterfaces addressSpaces memoryMaps model fileSets description"
)
#: Children of an element in the order of the standard; the first ones are needed.
ORDER = {
    "component": (_COMPONENT, 4),
    "busInterface": "name busType abstractionType master slave portMaps parameters",
    "addressSpace": ("name range width", 3),
    "memoryMap": ("name addressBlock", 2),
    "addressBlock": ("name baseAddress range width usage register", 4),
    "register": ("name description addressOffset size access field", 1),
    "field": ("name description bitOffset bitWidth modifiedWriteValue", 1),
    "model": "views ports", "port": ("name wire", 2), "wire": ("direction vector", 1),
    "vector": ("left right", 2), "fileSet": ("name file", 2),
    "file": "name fileType userFileType", "parameter": ("name value", 2),
    "view": ("name envIdentifier language modelName fileSetRef", 2),
    "portMap": ("logicalPort physicalPort", 2),
    "busInterfaces": "busInterface", "addressSpaces": "addressSpace", "memoryMaps": "memoryMap",
    "views": "view", "ports": "port", "fileSets": "fileSet", "portMaps": "portMap",
    "parameters": "parameter", "fileSetRef": "localName", "logicalPort": "name",
    "physicalPort": "name", "master": "addressSpaceRef", "slave": "memoryMapRef",
}
#: Elements without children, and what they may say.
VALUES = {
    "direction": "in|out", "access": "read-only|read-write|write-only",
    "addressOffset": "0x[0-9a-f]+", "size": "32", "width": r"\d+", "range": "0x[0-9a-f]+",
    "left": r"\d+", "right": "0", "bitOffset": r"\d+", "bitWidth": r"\d+", "usage": "register",
    "fileType": "verilogSource", "userFileType": "xdc", "modifiedWriteValue": "oneToClear",
}


@pytest.fixture(scope="module", params=ZYNQ_BOARDS)
def made(request, tmp_path_factory):
    """Board, core, folder.  The nano core stands in: the large ones are emitted elsewhere."""
    board, real = BOARDS[request.param], preset(request.param)
    arch = dataclasses.replace(preset("nano"), name=real.name, part=real.part, ports=real.ports)
    folder = tmp_path_factory.mktemp(board.name)
    files = package(board.name, arch, folder)
    assert all(file.stat().st_size for file in files)
    return board, arch, folder


def text(element, path):
    return element.findtext("/".join(SPIRIT + part for part in path.split("/")))


def every(element, path):
    return element.findall("/".join(SPIRIT + part for part in path.split("/")))


def check_shape(element):
    tag = element.tag.removeprefix(SPIRIT)
    children = [child.tag.removeprefix(SPIRIT) for child in element]
    if not children:
        if tag in VALUES:
            assert re.fullmatch(VALUES[tag], element.text or ""), f"{tag}: {element.text!r}"
        return
    order, needed = ORDER[tag] if isinstance(ORDER[tag], tuple) else (ORDER[tag], 1)
    names = order.split()
    places = [names.index(child) for child in children]
    assert places == sorted(places), f"{tag}: {children}"
    assert set(names[:needed]) <= set(children), f"{tag}: {children}"
    for child in element:
        check_shape(child)


def test_component_has_the_shape_of_the_standard(made):
    _, arch, folder = made
    root = ET.parse(folder / "ip" / "component.xml").getroot()
    assert root.tag == f"{SPIRIT}component"
    check_shape(root)
    assert IP_TYPE in ":".join(text(root, tag) for tag in ("vendor", "library", "name"))
    # References lead somewhere.
    names = {e.text for e in root.iter(f"{SPIRIT}name")}
    for element in root.iter():
        for key in ("addressSpaceRef", "memoryMapRef"):
            if reference := element.get(SPIRIT + key):
                assert reference in names
    for file in every(root, "fileSets/fileSet/file"):
        assert (folder / "ip" / text(file, "name")).is_file()
    assert text(root, "model/views/view/modelName") == module_name(arch)
    # What an interconnect sizes itself by.
    for port in port_names(arch):
        parameters = {
            text(p, "name"): text(p, "value")
            for bus in every(root, "busInterfaces/busInterface") if text(bus, "name") == port
            for p in every(bus, "parameters/parameter")
        }
        assert parameters["DATA_WIDTH"] == str(8 * arch.port_bytes)
        assert parameters["MAX_BURST_LENGTH"] == str(arch.burst_beats)
        for direction in ("READ", "WRITE"):
            assert parameters[f"NUM_{direction}_OUTSTANDING"] == str(arch.outstanding)


def test_ports_are_those_of_the_verilog(made):
    _, arch, folder = made
    root = ET.parse(folder / "ip" / "component.xml").getroot()
    source = (folder / "ip" / f"{module_name(arch)}.v").read_text()
    body = source[source.index(f"module {module_name(arch)}("):]
    body = body[: body.index("endmodule")]
    real = {
        name: (way == "output", int(left or 0) + 1)
        for way, left, name in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", body, re.M)
    }
    described = {
        text(port, "name"): (text(port, "wire/direction") == "out",
                             int(text(port, "wire/vector/left") or 0) + 1)
        for port in every(root, "model/ports/port")
    }
    assert described == real
    mapped = [e.text for e in every(root, "busInterfaces/busInterface/portMaps/portMap/"
                                          "physicalPort/name")]
    assert sorted(mapped) == sorted(real)


def test_registers_are_those_of_the_contract(made):
    _, arch, folder = made
    root = ET.parse(folder / "ip" / "component.xml").getroot()
    found = {
        text(r, "name"): (int(text(r, "addressOffset"), 16), {
            text(f, "name"): (int(text(f, "bitOffset")), int(text(f, "bitWidth")))
            for f in every(r, "field")
        })
        for r in root.iter(f"{SPIRIT}register")
    }
    assert found == {
        r.name: (r.offset, {f.name: (f.lsb, f.bits) for f in r.fields}) for r in csr.REGISTERS
    }
    header = c_header(arch)
    for name, (offset, _) in found.items():
        assert f"#define VITRIFY_{name} 0x{offset:03x}u" in header


def run_tcl(script):
    """Commands of a script, with every command of Vivado a stub that tells its name."""
    tkinter = pytest.importorskip("tkinter", reason="the Tcl check needs tkinter")
    tcl, calls = tkinter.Tcl(), []
    tcl.createcommand("note", lambda *words: calls.append(words) or f"<{words[0]}>")
    tcl.eval("proc unknown args { note {*}$args }")
    tcl.eval("proc file {what args} { if {$what eq {copy}} {note file copy {*}$args} else "
             "{return [lindex $args 0]} }")
    tcl.eval("proc glob args { return [list [lindex $args end]] }")
    tcl.eval("proc get_property {name object} { return 100% }")
    tcl.eval("proc puts args {}")
    tcl.evalfile(str(script))
    return calls


def test_tcl_runs_and_says_what_the_contract_says(made):
    board, arch, folder = made
    calls = run_tcl(folder / "build.tcl")
    commands = [call[0] for call in calls]
    assert commands[0] == "create_project" or "create_project" in commands
    text_of = [" ".join(call) for call in calls]
    assert any(f"-part {arch.part.name}" in line for line in text_of)
    assert any(f"-vlnv vitrify:vitrify:{module_name(arch)}:" in line for line in text_of)
    maps = [line for line in text_of if line.startswith("assign_bd_address")]
    assert f"-offset 0x{board.zynq.registers:08x} -range 0x{board.register_bytes:x}" in maps[0]
    assert len(maps) == 1 + arch.ports
    for line in maps[1:]:
        assert f"-offset 0x00000000 -range 0x{board.zynq.memory_bytes:x}" in line
    check_memory_ports(board, arch, calls)
    clocks = [line for line in text_of if "FREQMHZ" in line]
    assert clocks
    assert f"FREQMHZ {board.clock_mhz:g}" in clocks[0]
    order = [commands.index(c) for c in (
        "create_project", "create_bd_design", "validate_bd_design", "launch_runs", "wait_on_run",
        "write_hw_platform",
    )]
    assert order == sorted(order)
    # Every pin that is joined belongs to a cell that was made.
    cells = {call[-1] for call in calls if call[0] == "create_bd_cell"}
    pins = [call[-1] for call in calls if call[0] in ("get_bd_pins", "get_bd_intf_pins")]
    assert len(pins) > 20
    assert {pin.split("/")[0] for pin in pins} == cells
    # Each pin is driven once: the clocks' source and the reset's apart, none appears twice.
    interfaces = [call[-1] for call in calls if call[0] == "get_bd_intf_pins"]
    assert len(interfaces) == len(set(interfaces))


def check_memory_ports(board, arch, calls):
    """As many ports as the core has, each as wide as the board's description says, on its clock."""
    text_of = [" ".join(call) for call in calls]
    numbers = board.ports.taken(arch.ports)
    settings = next(line for line in text_of if "_HP0" in line or "SAXIGP" in line)
    used = {int(n) for n in re.findall(r"USE_+S_AXI_(?:HP|GP)(\d) 1", settings)}
    offset = 2 if board.zynq.family == "zynqmp" else 0
    assert used == {n + offset for n in numbers}
    widths = re.findall(r"(?:SAXIGP|S_AXI_HP)\d_+DATA_WIDTH (\d+)", settings)
    assert widths == [str(8 * board.ports.bytes)] * arch.ports
    joined = {call[-1] for call in calls if call[0] == "get_bd_intf_pins"}
    slaves = {pin for pin in joined if "S_AXI_HP" in pin}
    assert {int(re.search(r"HP(\d)", pin)[1]) for pin in slaves} == set(numbers)  # pyright: ignore[reportOptionalSubscript]
    masters = {pin for pin in joined if pin.startswith("core/m_axi")}
    assert masters == {f"core/{name}" for name in port_names(arch)}
    clocked = {call[-1].lower() for call in calls if call[0] == "get_bd_pins"}
    for number in numbers:
        assert any(f"axi_hp{number}_aclk" in p or f"axihp{number}_fpd_aclk" in p for p in clocked)


@pytest.mark.parametrize("name", BOARDS)
def test_presets_are_what_the_build_makes(name):
    """A preset's clock, part, ports and memory are its board's; nothing wider is connected."""
    arch, board = preset(name), BOARDS[name]
    board.require(arch)
    assert (arch.clock_mhz, arch.part) == (board.clock_mhz, board.part)
    assert arch.dram == board.memory.dram
    assert arch.port_bytes == board.ports.bytes
    assert board.memory.dram.sustained == pytest.approx(
        board.memory.peak * board.memory.efficiency
    )
    # Refreshes, turn-arounds and misses are those of a standard, never of an ideal memory.
    times = board.memory.times
    assert min(times.refresh_interval_ns, times.refresh_ns, times.turnaround_ns,
               times.row_miss_ns) > 0


def test_other_files(made):
    board, arch, folder = made
    core = yaml.safe_load((folder / f"{module_name(arch)}.core").read_text().split("\n", 1)[1])
    for files in core["filesets"].values():
        assert all((folder / file).is_file() for file in files["files"])
    assert core["targets"]["synth"]["toplevel"] == module_name(arch)
    assert core["targets"]["synth"]["tools"]["vivado"]["part"] == arch.part.name
    period = re.search(r"-period ([\d.]+)", next((folder / "ip").glob("*.xdc")).read_text())[1]
    assert float(period) == pytest.approx(1000 / board.clock_mhz, abs=1e-3)
    assert "set_clock_uncertainty" in (folder / "timing.xdc").read_text()


def device_tree(text):
    """Nodes and their properties; of a reference, the label."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    nodes = re.findall(r"([\w-]+@[0-9a-f]+) \{(.*?)\};", text, re.S)
    return {
        name: dict(re.findall(r"([\w-]+) = [<\"]&?(.*?)[>\"];", body)) for name, body in nodes
    }


def test_device_tree(made):
    board, _, folder = made
    text = (folder / "vitrify.dtso").read_text()
    assert text.count("{") == text.count("}")
    nodes = device_tree(text)
    core, buffer = nodes[f"vitrify@{board.zynq.registers:x}"], nodes["udmabuf@0"]
    assert core["compatible"] == "generic-uio"
    cells = [int(cell, 0) for cell in core["reg"].split()]
    wide = board.zynq.family == "zynqmp"
    assert cells == ([0, board.zynq.registers, 0, board.register_bytes] if wide
                     else [board.zynq.registers, board.register_bytes])
    # A shared peripheral interrupt, level high, as the core's line is.
    assert (core["interrupt-parent"], core["interrupts"]) == (
        ("gic", "0 89 4") if wide else ("intc", "0 29 4")
    )
    assert buffer["compatible"] == "ikwzm,u-dma-buf"
    assert int(buffer["size"], 0) == 64 << 20


def test_overlay_is_what_the_compiler_takes(made, tmp_path):
    need("dtc", "device-tree-compiler")
    _, _, folder = made
    subprocess.run(
        ["dtc", "-@", "-O", "dtb", "-o", tmp_path / "vitrify.dtbo", folder / "vitrify.dtso"],
        check=True,
    )


def bitstream(part):
    """The fields of a Xilinx bitstream, with next to nothing in it."""
    body = bytes.fromhex("ffffffff 000000bb 11220044 ffffffff aa995566") + bytes.fromhex(
        "20000000") * 64
    fields = zip(b"abcd", (b"system", part.encode(), b"2024/01/01", b"00:00:00"), strict=True)
    return b"".join([
        bytes.fromhex("0009 0ff00ff00ff00ff000 0001"),
        *(bytes([key]) + (len(text) + 1).to_bytes(2, "big") + text + b"\0" for key, text in fields),
        b"e" + len(body).to_bytes(4, "big") + body,
    ])


def test_commands_of_the_documentation(made, tmp_path):
    """They make the files that are copied to the board."""
    board, arch, folder = made
    if board.zynq.family == "zynq7":
        return
    need("bootgen", "xilinx-bootgen")
    need("dtc", "device-tree-compiler")
    folder = shutil.copytree(folder, tmp_path / "package")
    (folder / "system.bit").write_bytes(bitstream(arch.part.name))
    text = (ROOT / "docs/boards.md").read_text()
    make, compile_, copy = re.search(r"(bootgen .*)\n(dtc .*)\nscp (.*) root@", text).groups()
    subprocess.run(f"{make} && {compile_}", shell=True, cwd=folder, check=True)
    assert all((folder / name).stat().st_size for name in copy.split())


def test_firmware_of_ultrascale(made):
    """What Linux loads by itself: file names agree, clock and ports are the board's."""
    board, arch, folder = made
    overlay = (folder / "vitrify.dtso").read_text()
    if board.zynq.family == "zynq7":
        assert "fpga_full" not in overlay
        assert not (folder / "shell.json").exists()
        return
    assert json.loads((folder / "shell.json").read_text())["shell_type"] == "XRT_FLAT"
    built = "system.bit"
    assert built in (folder / "build.tcl").read_text()
    assert built in (folder / "vitrify.bif").read_text().split()
    assert 'firmware-name = "vitrify.bit.bin"' in overlay
    assert f"assigned-clock-rates = <{round(board.clock_mhz * 1e6)}>" in overlay
    (settings,) = re.findall("config-afi = (.*);", overlay)
    widths = {int(place): int(code, 0)
              for place, code in re.findall(r"<(\d+) (\w+)>", settings)}
    assert widths.pop(14) == 0xA00
    ports = board.ports.taken(arch.ports)
    assert widths == {place: 0 for port in ports for place in (4 + 2 * port, 5 + 2 * port)}
    assert board.ports.bytes == 16


def test_an_ip_for_a_board_of_ones_own(tmp_path):
    """The example of `docs/architectures.md`."""
    file = str(ROOT / "examples" / "arty_a7.yaml")
    assert main(["emit", "--arch", file, "--ip", "-o", str(tmp_path / "ip")]) == 0
    made = None, load_arch(file), tmp_path
    test_component_has_the_shape_of_the_standard(made)
    test_ports_are_those_of_the_verilog(made)
    assert "-period 12.000 " in next((tmp_path / "ip").glob("*.xdc")).read_text()


def test_unsuitable_cores_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="for the part LFE5U-85F, which kv260 has not"):
        package("kv260", preset("nano"), tmp_path)
    for changes, words in (
        ({"bus_bytes": 16}, "a memory port of pynq-z2 carries 8 bytes a cycle, not 16; set ports"),
        ({"bus_bytes": 16, "ports": 8}, "has 8 memory ports, and pynq-z2 offers 4"),
    ):
        with pytest.raises(ConfigError, match=words):
            package("pynq-z2", dataclasses.replace(preset("pynq-z2"), **changes), tmp_path)
    with pytest.raises(ConfigError, match="ulx3s has no Zynq; the Zynq boards are pynq-z2"):
        package("ulx3s", preset("nano"), tmp_path)
    arch = dataclasses.replace(preset("pynq-z2"), burst_beats=64)
    with pytest.raises(ConfigError, match="bursts of 16 beats, not 64"):
        package("pynq-z2", arch, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "words"), [
    (("--board", "arty"), "no board is called 'arty'; the boards are ulx3s, colorlight-i9"),
    (("--board", "kv260", "--clock", "0"), "--clock must be 1 to 1000 MHz, not 0"),
    (("--board", "ulx3s", "--arch", "nano"), "needs bus_bytes 2, not 4"),
    (("--board", "ulx3s", "--clock", "900"), "makes no clock of 900 MHz"),
])
@pytest.mark.filterwarnings("error")
def test_build_says_what_is_wrong(arguments, words, capsys, tmp_path):
    assert main(["build", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
