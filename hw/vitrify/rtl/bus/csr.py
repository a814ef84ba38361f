"""AXI4-Lite slave for the registers of :mod:`vitrify.arch.csr`, built from their table.

Ports carry the registers' lower-case names; no offset or bit position is written here.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Member, Out

from vitrify.arch import csr
from vitrify.arch.config import CONTRACT_VERSION, ArchConfig
from vitrify.arch.csr import Access, Register

from .axi import Resp, axi4_lite

REGISTER_BITS = 32
_BYTES = REGISTER_BITS // 8
#: log2 of the neighbours that are read through one register.
_GROUP_BITS = 3
#: Performance counters, in the order of the table.
COUNTER_VALUES = data.StructLayout(
    {name.lower(): 2 * REGISTER_BITS for name, _ in csr.COUNTERS}
)


def register_layout(register: Register) -> data.Layout:
    """The 32 bits of a register: its fields, or one field ``value``."""
    if not register.fields:
        return data.StructLayout({"value": REGISTER_BITS})
    return data.FlexibleLayout(REGISTER_BITS, {
        field.name: data.Field(field.bits, field.lsb) for field in register.fields
    })


def _width(register: Register) -> int:
    """Bits up to the highest one that means something; those above read as zero."""
    return max((f.lsb + f.bits for f in register.fields), default=REGISTER_BITS)


def constants(arch: ArchConfig) -> dict[str, int]:
    """Registers with the same value for ever."""
    return {"MAGIC": csr.MAGIC, "VERSION": CONTRACT_VERSION, "ARCH_HASH": arch.hash}


def _is_counter(register: Register) -> bool:
    return register.name.removesuffix("_LO").removesuffix("_HI") in dict(csr.COUNTERS)


class ControlRegisters(wiring.Component):
    """The register file and the interrupt line.

    Addresses without a register read as zero and ignore writes, with an OKAY response: an error
    response would kill the process (or the kernel) that probes a newer core's registers.  Byte
    strobes are honoured.  A write takes effect two cycles after both its channels were accepted,
    in the order of acceptance; a read returns the value four cycles after its address.  The two
    halves of a counter are read one after the other: while a job runs, read high, low, high.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    s_axi : In(axi4_lite())
    irq : Out(1)
        ``IRQ_STATUS & IRQ_ENABLE`` is not zero.
    counters : In(COUNTER_VALUES)
    <RO register> : In(register_layout(register))
        What it reads as (constants and counters apart).
    <RW register> : Out(register_layout(register))
        What was written last.
    <WO register> : Out(register_layout(register))
        What is being written, for one cycle; else zero.
    <WO register>_write : Out(1)
        Pulse for every write, whatever was written.
    <W1C register> : In(register_layout(register))
        Bits to set.
    <W1C register>_clear : In(1)
        Clear all its bits.
    """

    s_axi: Any
    irq: Signal
    counters: Any

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self._constants = constants(arch)
        members: dict[str, Member] = {
            "s_axi": In(axi4_lite()), "irq": Out(1), "counters": In(COUNTER_VALUES),
        }
        for register in self._ported():
            name, layout = register.name.lower(), register_layout(register)
            inward = register.access in (Access.RO, Access.W1C)
            members[name] = In(layout) if inward else Out(layout)
            if register.access is Access.WO:
                members[f"{name}_write"] = Out(1)
            if register.access is Access.W1C:
                members[f"{name}_clear"] = In(1)
        super().__init__(members)

    def _ported(self) -> list[Register]:
        return [r for r in csr.REGISTERS if r.name not in self._constants and not _is_counter(r)]

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        storage = {
            register.name: Signal(_width(register), name=register.name.lower() + "_value")
            for register in self._ported() if register.access in (Access.RW, Access.W1C)
        }
        self._write_channel(m, storage)
        self._read_channel(m, storage)
        pending = storage["IRQ_STATUS"] & storage["IRQ_ENABLE"]
        m.d.sync += self.irq.eq(pending.any())
        return m

    def _write_channel(self, m: Module, storage: dict[str, Signal]) -> None:
        axi = self.s_axi
        # Both channels are taken on their own and wait for each other here.
        index = Signal(csr.CSR_ADDRESS_BITS - 2)
        bits, mask = Signal(REGISTER_BITS), Signal(REGISTER_BITS)
        have_address, have_data, act = Signal(), Signal(), Signal()
        m.d.comb += [
            axi.awready.eq(~have_address), axi.wready.eq(~have_data),
            act.eq(have_address & have_data & ~axi.bvalid),
            axi.bresp.eq(Resp.OKAY),
        ]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [have_address.eq(1), index.eq(axi.awaddr >> 2)]
        with m.If(axi.wvalid & axi.wready):
            strobes = Cat(bit.replicate(8) for bit in axi.wstrb)
            m.d.sync += [have_data.eq(1), bits.eq(axi.wdata & strobes), mask.eq(strobes)]
        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(act):
            m.d.sync += [have_address.eq(0), have_data.eq(0), axi.bvalid.eq(1)]

        for register in self._ported():
            name = register.name.lower()
            selected = Signal(name=f"write_{name}")
            m.d.comb += selected.eq(act & (index == register.offset // _BYTES))
            port = getattr(self, name)
            if register.access is Access.RW:
                value = storage[register.name]
                with m.If(selected):
                    m.d.sync += value.eq((value & ~mask) | bits)
                m.d.comb += port.as_value().eq(value)
            elif register.access is Access.WO:
                pulse = getattr(self, f"{name}_write")
                m.d.sync += [
                    port.as_value().eq(bits & selected.replicate(REGISTER_BITS)),
                    pulse.eq(selected & mask.any()),
                ]
            elif register.access is Access.W1C:
                value, clear = storage[register.name], getattr(self, f"{name}_clear")
                cleared = bits & selected.replicate(REGISTER_BITS)
                m.d.sync += value.eq(
                    (value & ~cleared & ~clear.replicate(REGISTER_BITS)) | port.as_value()
                )

    def _read_channel(self, m: Module, storage: dict[str, Signal]) -> None:
        axi = self.s_axi
        index = Signal(csr.CSR_ADDRESS_BITS - 2)
        looking, found = Signal(), Signal()
        m.d.comb += [
            axi.arready.eq(~looking & ~found & ~axi.rvalid),
            axi.rresp.eq(Resp.OKAY),
        ]
        m.d.sync += [looking.eq(axi.arvalid & axi.arready), found.eq(looking)]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += index.eq(axi.araddr >> 2)
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        # Registers lie all over the chip: first one of each group of neighbours, then the group.
        groups: dict[int, list[Register]] = {}
        for register in csr.REGISTERS:
            if register.access is not Access.WO:
                number = register.offset // _BYTES
                groups.setdefault(number >> _GROUP_BITS, []).append(register)
        chosen = {group: Signal(REGISTER_BITS, name=f"group_{group}") for group in groups}
        for group, registers in groups.items():
            m.d.sync += chosen[group].eq(0)
            with m.Switch(index[:_GROUP_BITS]):
                for register in registers:
                    with m.Case(register.offset // _BYTES % (1 << _GROUP_BITS)):
                        m.d.sync += chosen[group].eq(self._value(register, storage))
        with m.If(found):
            m.d.sync += [axi.rvalid.eq(1), axi.rdata.eq(0)]
            with m.Switch(index[_GROUP_BITS:]):
                for group, value in chosen.items():
                    with m.Case(group):
                        m.d.sync += axi.rdata.eq(value)

    def _value(self, register: Register, storage: dict[str, Signal]) -> Value | int:
        """What a register reads as."""
        if register.name in self._constants:
            return self._constants[register.name]
        if _is_counter(register):
            counter = self.counters[register.name.lower()[:-3]]
            high = register.name.endswith("_HI")
            return counter[REGISTER_BITS:] if high else counter[:REGISTER_BITS]
        if register.name in storage:
            return storage[register.name]
        return getattr(self, register.name.lower()).as_value()
