"""The registers as a C header: offsets, fields, error codes."""

from __future__ import annotations

from . import csr, memmap
from .config import CONTRACT_VERSION, ArchConfig

#: Its name where it is written.
HEADER = "vitrify_regs.h"


def c_header(arch: ArchConfig) -> str:
    """Registers, shifts and masks of their fields, and error codes as C macros.

    ``VITRIFY_STATUS`` is a byte offset; ``VITRIFY_STATUS_SPACE_SHIFT`` the number of the field's
    lowest bit, and ``VITRIFY_STATUS_SPACE_MASK`` its bits where they lie in the register.
    """
    lines = [
        f"/* Registers of the Vitrify core {arch.name}, contract version {CONTRACT_VERSION}. */",
        "#ifndef VITRIFY_REGS_H",
        "#define VITRIFY_REGS_H",
        "",
        f"#define VITRIFY_MAGIC_VALUE 0x{csr.MAGIC:08x}u",
        f"#define VITRIFY_VERSION_VALUE {CONTRACT_VERSION}u",
        f"#define VITRIFY_ARCH_HASH_VALUE 0x{arch.hash:08x}u",
        f"#define VITRIFY_QUEUE_DEPTH {csr.QUEUE_DEPTH}u",
        f"#define VITRIFY_LIMIT_CYCLES {csr.LIMIT_CYCLES}u",
        f"#define VITRIFY_REGISTER_BYTES {1 << csr.CSR_ADDRESS_BITS}u",
        f"#define VITRIFY_ALIGNMENT {memmap.ALIGNMENT}u",
        f"#define VITRIFY_SIGNATURE_BYTES {memmap.SIGNATURE_BYTES}u",
        "",
    ]
    for register in csr.REGISTERS:
        name = f"VITRIFY_{register.name}"
        lines.append(
            f"#define {name} 0x{register.offset:03x}u /* {register.access.value}: {register.doc} */"
        )
        for field in register.fields:
            lines += [
                f"#define {name}_{field.name.upper()}_SHIFT {field.lsb}u",
                f"#define {name}_{field.name.upper()}_MASK 0x{field.mask:x}u /* {field.doc} */",
            ]
    codes = list(csr.ErrorCode)
    assert codes == list(range(len(codes)))
    names = ", ".join(f'"{code.name}"' for code in codes)
    lines += [
        "",
        *(f"#define VITRIFY_ERROR_{code.name} {int(code)}" for code in codes),
        "/* Their names, by number. */",
        f"#define VITRIFY_ERROR_NAMES {names}",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)
