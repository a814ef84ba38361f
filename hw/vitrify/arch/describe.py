"""Renders the contract as documentation: ``hw/REFERENCE.md`` is the output of :func:`reference`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import csr, formats, isa, memmap
from .config import CONTRACT_VERSION, MECHANISMS
from .presets import PRESETS

_HEAD = """\
# Reference: instruction set, registers, number formats, presets

Written by `vitrify describe` from `hw/vitrify/arch`; do not edit.
Contract version {version}.
"""


def reference() -> str:
    """The whole document, Markdown."""
    sections = (
        _HEAD.format(version=CONTRACT_VERSION),
        instructions(),
        registers(),
        number_formats(),
        layouts(),
        codes(),
        presets(),
    )
    return "\n".join(sections)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def _summary(doc: str | None) -> str:
    """First paragraph of a docstring, on one line."""
    return " ".join((doc or "").split("\n\n")[0].split())


def instructions() -> str:
    """Every opcode with its fields."""
    intro = (
        f"An instruction is {isa.INSTRUCTION_BYTES} bytes, little endian; fields are packed from "
        f"bit 0 upwards; unused bits are zero. `check` is a checksum of the bytes before it. "
        f"Distances count earlier instructions "
        f"(0: no wait, at most {isa.MAX_DISTANCE}).\n"
    )
    parts = ["## Instruction set\n", intro]
    for fmt in isa.FORMATS.values():
        parts.append(f"### {fmt.opcode.name} ({int(fmt.opcode)})\n\n{fmt.doc}.\n")
        layout = fmt.layout
        rows: list[Sequence[object]] = [(_bits(*layout["opcode"]), "opcode", int(fmt.opcode), "")]
        for field in fmt.fields:
            values = (
                ", ".join(f"{int(v)} {v.name}" for v in field.kind)
                if field.kind
                else f"{field.low} … {field.max}"
            )
            rows.append((_bits(*layout[field.name]), f"`{field.name}`", values, field.doc))
        rows.append((_bits(*layout["check"]), "check", "", "checksum"))
        parts.append(_table(("bits", "field", "values", "meaning"), rows))
    for kind in (isa.Transform, isa.Stationary, isa.Output, isa.Stats, isa.RowScale,
                 isa.Combine, isa.Region):
        parts.append(f"### {kind.__name__}\n\n{_summary(kind.__doc__)}\n")
        parts.append(_table(("value", "name"), ((int(v), v.name) for v in kind)))
    return "\n".join(parts)


def codes() -> str:
    """Levels of trellis-coded weights."""
    from . import trellis

    head = ("state", *map(str, range(16)))
    rows = ((state, *map(int, row)) for state, row in enumerate(trellis.LEVELS))
    intro = (
        "With `trellis`, what a code of 4 bits stands for depends on the lowest bits of the two "
        "codes before it in the chain, the older one first: its state. A chain goes along the "
        "columns of a c tile, for each byte of a word by itself, and begins in state 0.\n"
    )
    return "\n".join(("## Trellis-coded weights\n", intro, _table(head, rows)))


def _bits(at: int, bits: int) -> str:
    return str(at) if bits == 1 else f"{at + bits - 1}:{at}"


def registers() -> str:
    """The register map of the AXI4-Lite slave."""
    rows = []
    for register in csr.REGISTERS:
        doc = register.doc
        if register.fields:
            doc += ": " + "; ".join(
                f"[{_bits(f.lsb, f.bits)}] `{f.name}` {f.doc}" for f in register.fields
            )
        rows.append((f"0x{register.offset:03x}", f"`{register.name}`", register.access.value, doc))
    errors = ((int(code), code.name) for code in csr.ErrorCode)
    return "\n".join(
        (
            "## Registers\n",
            f"32 bits each; the queue holds {csr.QUEUE_DEPTH} jobs. Access: "
            + ", ".join(f"`{a.value}`" for a in csr.Access)
            + " (w1c: writing ones clears).\n",
            _table(("offset", "name", "access", "meaning"), rows),
            "### ERROR_CODE\n",
            _table(("value", "name"), errors),
        )
    )


def number_formats() -> str:
    """The named widths and constants of the data path."""
    rows = [
        (f"`{name}`", value)
        for name, value in vars(formats).items()
        if name.isupper() and isinstance(value, int | tuple)
    ]
    return "\n".join(
        (
            "## Number formats\n",
            "Rounding is half up, `(x + 2**(s-1)) >> s`; everything saturates, nothing wraps.\n",
            _table(("constant", "value"), rows),
        )
    )


def layouts() -> str:
    """Memory layouts, as the contract's module describes them."""
    text = (memmap.__doc__ or "").split("\n\n", 1)[1].rstrip()
    return f"## Memory layouts\n\n```text\n{text}\n```\n"


def presets() -> str:
    """The named architectures."""
    rows = [
        (
            f"`{a.name}`",
            a.macs,
            f"{a.depth} x {a.width}",
            a.lanes,
            a.max_rows,
            f"{a.token_bytes // 1024} KiB ({a.banks} x {a.bank_words})",
            a.bus_bytes,
            a.experts or "-",
            " ".join(name for name in MECHANISMS if getattr(a, name)) or "-",
            f"{a.clock_mhz:g}",
            a.part.name,
            f"{a.hash:08x}",
        )
        for a in PRESETS.values()
    ]
    head = (
        "preset",
        "MACs",
        "K x C",
        "lanes",
        "rows",
        "token memory",
        "bus bytes",
        "experts",
        "mechanisms",
        "MHz",
        "part",
        "hash",
    )
    return "## Presets\n\n" + _table(head, rows)
