"""The testbench of an exported run: parameters and wires for ``verilog/testbench.v``."""

from __future__ import annotations

from pathlib import Path

from vitrify.arch import csr, memmap
from vitrify.arch.config import CONTRACT_VERSION
from vitrify.arch.names import module_name, port_names

from .layout import Layout

_TEMPLATE = Path(__file__).parent / "verilog" / "testbench.v"
#: Signals of a memory port that the memory looks at, with their bits.
_SIGNALS = {
    "arvalid": "1", "arready": "1", "araddr": "ADDRESS_BITS", "arlen": "8",
    "rvalid": "1", "rready": "1", "rdata": "8*BYTES", "rresp": "2", "rlast": "1",
    "awvalid": "1", "awready": "1", "awaddr": "ADDRESS_BITS", "awlen": "8",
    "wvalid": "1", "wready": "1", "wdata": "8*BYTES", "wstrb": "BYTES", "wlast": "1",
    "bvalid": "1", "bready": "1", "bresp": "2",
}
#: The core has one transaction identifier, 0.
_TIED = ("rid", "bid")


def testbench(layout: Layout) -> str:
    """A self-checking testbench for the core that ``vitrify emit`` writes."""
    program, arch = layout.program, layout.program.arch
    values = {
        "MODULE": module_name(arch),
        "MODEL_ARCH": arch.name,
        "PARAMETERS": "\n".join(
            f"    localparam {name} = {value};" for name, value in _parameters(layout).items()
        ),
        "REGISTERS": "\n".join(
            line for name in _USED for line in _register(csr.BY_NAME[name])
        ),
        "PREPARE": "\n".join(
            f"        write_register(12'h{csr.BY_NAME[name].offset:03x}, 32'h{value:08x});"
            f" // {name}"
            for name, value in layout.registers().items()
        ),
        "TASKS": "\n".join(
            f"            {job}: task_of = 32'h{task:08x};" for job, task in enumerate(layout.tasks)
        ),
        "PORTS": ",\n".join(
            [f"        .{port}_{name}({name}[{i}*({bits}) +: {bits}])"
             for i, port in enumerate(port_names(arch)) for name, bits in _SIGNALS.items()]
            + [f"        .{port}_{name}(1'b0)" for port in port_names(arch) for name in _TIED]
        ),
        "QUIET": str(program.quiet_cycles),
    }
    text = _TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


_USED = ("MAGIC", "VERSION", "ARCH_HASH", "CONTROL", "STATUS", "IRQ_STATUS", "JOBS_DONE",
         "ERROR_CODE", "ERROR_INFO_LO", "INPUT_BASE_LO", "INPUT_BASE_HI", "OUTPUT_BASE_LO",
         "OUTPUT_BASE_HI", "TASK", "JOB_PUSH", "CYCLES_LO")


def _register(register: csr.Register) -> list[str]:
    """Its offset, and the masks of its fields."""
    return [
        f"    localparam [11:0] {register.name} = 12'h{register.offset:03x};",
        *(f"    localparam [31:0] {register.name}_{field.name.upper()} = 32'h{field.mask:08x};"
          for field in register.fields),
    ]


def _parameters(layout: Layout) -> dict[str, str]:
    arch, (image, source, target) = layout.program.arch, layout.regions
    return {
        "PORTS": str(arch.ports),
        "BYTES": str(arch.port_bytes),
        "ADDRESS_BITS": str(memmap.ADDRESS_BITS),
        "JOBS": str(len(layout.tasks)),
        "WORDS": f"{layout.end} / BYTES",
        "INPUT_ADDRESS": str(source.address),
        "INPUT_STEP": str(source.step),
        "OUTPUT_ADDRESS": str(target.address),
        "OUTPUT_STEP": str(target.step),
        "PROGRAM_WORDS": f"{image.step} / BYTES",
        "MAGIC_VALUE": f"32'h{csr.MAGIC:08x}",
        "VERSION_VALUE": str(CONTRACT_VERSION),
        "ARCH_HASH_VALUE": f"32'h{arch.hash:08x}",
    }
