"""Control and status registers of the AXI4-Lite slave: 32 bits each, byte offsets."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from . import isa, memmap


class Access(enum.Enum):
    """Who may change a register."""

    #: Read only.
    RO = "ro"
    #: Read and write.
    RW = "rw"
    #: Writing does something; reads as zero.
    WO = "wo"
    #: Writing ones clears them.
    W1C = "w1c"


@dataclass(frozen=True)
class Bit:
    """A named field of a register."""

    name: str
    lsb: int
    bits: int
    doc: str

    @property
    def mask(self) -> int:
        """Its bits where they lie in the register."""
        return ((1 << self.bits) - 1) << self.lsb

    def of(self, value: int) -> int:
        """Its value in that of the register."""
        return (value & self.mask) >> self.lsb


@dataclass(frozen=True)
class Register:
    """One register."""

    name: str
    offset: int
    access: Access
    doc: str
    fields: tuple[Bit, ...] = ()

    def field(self, name: str) -> Bit:
        """The field ``name``."""
        return next(field for field in self.fields if field.name == name)

    @property
    def mask(self) -> int:
        """The bits of all fields."""
        return sum(field.mask for field in self.fields)


class ErrorCode(enum.IntEnum):
    """Why the core stopped (ERROR_CODE).  It stays stopped until CONTROL.reset."""

    NONE = 0
    #: Unknown opcode, wrong check field, a field out of range, fields that exclude each other, or
    #: a program that ran past PROGRAM_COUNT.
    ILLEGAL_INSTRUCTION = 1
    #: SLVERR or DECERR on a read.
    BUS_READ = 2
    #: SLVERR or DECERR on a write.
    BUS_WRITE = 3
    #: JOB_PUSH while the queue was full.
    QUEUE_OVERFLOW = 4
    #: A read outside the read window; it did not reach the bus.
    WINDOW_READ = 5
    #: A write outside the write window; it did not reach the bus.
    WINDOW_WRITE = 6
    #: JOB_PUSH while an address was no multiple of 4096; the job was not queued.
    MISALIGNED = 7
    #: A job took longer than CYCLE_LIMIT.
    TIMEOUT = 8
    #: A reset waited in vain for the bus; the next one waits again.
    BUS_LOST = 9


#: "VTFY", little endian.
MAGIC = int.from_bytes(b"VTFY", "little")
#: Jobs that the queue holds.
QUEUE_DEPTH = 8
#: Bits of CYCLE_LIMIT, and cycles of one unit of it.
LIMIT_BITS = 16
LIMIT_CYCLES = 1 << 16
#: Cycles for which a reset waits for the bus.
DRAIN_CYCLES = 1 << 16

#: Performance counters: 64 bits each, cleared by CONTROL.clear_counters.
COUNTERS: tuple[tuple[str, str], ...] = (
    ("CYCLES", "cycles in which a job was running"),
    ("ARRAY_BUSY", "cycles in which the matrix unit took a row"),
    ("STALL_TILE", "row fetch waited for a stationary tile"),
    ("STALL_DEPENDENCY", "row fetch waited for an earlier result or load"),
    ("STALL_DRAIN", "row fetch waited for the epilogue to drain a row"),
    ("STALL_BANK", "row fetch lost a token-memory bank to another reader"),
    ("STALL_EMPTY", "row fetch had no instruction"),
    ("EPILOGUE_BUSY", "cycles in which the epilogue took a lane group"),
    ("LOADER_BUSY", "cycles in which a word went to the stationary tile, parameters or tables"),
    ("LOADER_STARVED", "loader waited for the weight stream"),
    ("DRAM_READ_BEATS", "beats read from DRAM"),
    ("DRAM_WRITE_BEATS", "beats written to DRAM"),
    ("INSTRUCTIONS", "instructions executed"),
)


#: The upper half of an address, and of a limit, which may lie just behind the last one.
_UPPER = (Bit("value", 0, memmap.ADDRESS_BITS - 32, "address bits from 32 on"),)
_UPPER_LIMIT = (Bit("value", 0, memmap.ADDRESS_BITS - 31, "address bits from 32 on"),)


def _build() -> tuple[Register, ...]:
    table = [
        ("MAGIC", Access.RO, "reads 'VTFY'", ()),
        ("VERSION", Access.RO, "contract version", ()),
        ("ARCH_HASH", Access.RO, "hash of the architecture; a program carries the same", ()),
        ("CONTROL", Access.WO, "actions", (
            Bit("reset", 0, 1, "stop everything, empty the queue, clear errors"),
            Bit("clear_counters", 1, 1, "zero the performance counters"),
        )),
        ("STATUS", Access.RO, "state", (
            Bit("busy", 0, 1, "a job is running or waiting"),
            Bit("error", 1, 1, "stopped by an error, see ERROR_CODE"),
            Bit("bus_lost", 2, 1, "the memory did not answer the bursts that a reset found"),
            Bit("space", 8, 8, "jobs that still fit into the queue"),
        )),
        ("IRQ_ENABLE", Access.RW, "interrupt line = IRQ_STATUS & IRQ_ENABLE", (
            Bit("done", 0, 1, "a job finished"),
            Bit("error", 1, 1, "the core stopped with an error"),
        )),
        ("IRQ_STATUS", Access.W1C, "pending interrupts", (
            Bit("done", 0, 1, "a job finished"),
            Bit("error", 1, 1, "the core stopped with an error"),
        )),
        ("JOBS_DONE", Access.RO, "jobs finished since reset", ()),
        ("ERROR_CODE", Access.RO, "see ErrorCode", ()),
        ("ERROR_INFO_LO", Access.RO,
         "address of the burst, offset of the misaligned register, or the instruction's index", ()),
        ("ERROR_INFO_HI", Access.RO, "its upper bits", ()),
        ("PROGRAM_BASE_LO", Access.RW, "DRAM address of the next job's program image", ()),
        ("PROGRAM_BASE_HI", Access.RW, "its upper bits", _UPPER),
        ("PROGRAM_COUNT", Access.RW, "instructions in the program", ()),
        ("INPUT_BASE_LO", Access.RW, "DRAM address of the next job's input", ()),
        ("INPUT_BASE_HI", Access.RW, "its upper bits", _UPPER),
        ("OUTPUT_BASE_LO", Access.RW, "DRAM address of the next job's output", ()),
        ("OUTPUT_BASE_HI", Access.RW, "its upper bits", _UPPER),
        ("JOB_PUSH", Access.WO,
         "queue a job with program base and count, input and output base, and TASK", ()),
        ("TASK", Access.RW, "the next job's tasks, chosen by the field task_source", tuple(
            Bit(f"task{i}", isa.TASK_BITS * i, isa.TASK_BITS, f"task_source {i}")
            for i in range(isa.TASKS)
        )),
        *(
            (f"{window}_{end}_{half}", Access.RW, doc if half == "LO" else "its upper bits",
             () if half == "LO" else _UPPER if end == "BASE" else _UPPER_LIMIT)
            for window, verb in (("READ", "read"), ("WRITE", "write"))
            for end, doc in (
                ("BASE", f"first DRAM address that the core may {verb}"),
                ("LIMIT", f"first DRAM address behind those; 0 after power-on: no {verb}s"),
            )
            for half in ("LO", "HI")
        ),
        ("CYCLE_LIMIT", Access.RW, "a job that takes longer is an error; 0: no limit", (
            Bit("limit", 0, LIMIT_BITS, f"in units of {LIMIT_CYCLES} cycles"),
        )),
        ("DISPATCHED", Access.RO, "instructions of the present or last job that were handed out",
         ()),
        ("PROGRESS", Access.RO, "instructions that finished since reset, modulo 256", (
            Bit("matmuls", 0, 8, "MATMULs, without those that were skipped"),
            Bit("loads", 8, 8, "LOADs and LOAD_INDEXes"),
            Bit("stores", 16, 8, "STOREs"),
            Bit("routes", 24, 8, "ROUTEs"),
        )),
    ]
    registers = [
        Register(name, 4 * i, access, doc, fields)
        for i, (name, access, doc, fields) in enumerate(table)
    ]
    base = 0x80
    assert 4 * len(table) <= base
    for i, (name, doc) in enumerate(COUNTERS):
        registers.append(Register(f"{name}_LO", base + 8 * i, Access.RO, doc))
        registers.append(Register(f"{name}_HI", base + 8 * i + 4, Access.RO, "its upper 32 bits"))
    return tuple(registers)


REGISTERS: tuple[Register, ...] = _build()
BY_NAME: dict[str, Register] = {r.name: r for r in REGISTERS}
#: Address bits of the AXI4-Lite slave.
CSR_ADDRESS_BITS = 12
