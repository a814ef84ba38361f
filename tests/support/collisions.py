"""Verilog whose memories spoil what is read of a word in the very cycle in which it is written.

RAM blocks differ in what such a read gives (the old word, the new one, neither), and synthesis is
told that it does not matter (``no_rw_check``).  A core built from this text shows that it does not.
"""

from __future__ import annotations

import re

_MODULE = re.compile(r"^module .*?^endmodule", re.M | re.S)
_MEMORY = re.compile(r"^  reg \[[^\]]+\] (\S+) \[[^\]]+\];", re.M)
#: A write port, perhaps of some bits of the word.
_WRITE = r"if \((?P<enable>[^\n]+)\)\n\s+{name}\[(?P<address>[^\n]+?)\](?:\[[^\n]+\])? <= "
#: A read port with a register.
_READ = r"(?P<data>\S+) <= {name}\[(?P<address>[^\n]+)\];"


def spoil_collisions(verilog: str) -> tuple[str, list[str]]:
    """The changed text, and the names of the memories that it concerns."""
    names: list[str] = []

    def change(match: re.Match[str]) -> str:
        text = match.group(0)
        for name in _MEMORY.findall(text):
            text, count = _spoil(text, name)
            names.extend([name] * (count > 0))
        return text

    return _MODULE.sub(change, verilog), names


def _spoil(text: str, name: str) -> tuple[str, int]:
    """Change one memory of a module; a table, which nobody writes, stays as it is."""
    escaped = re.escape(name)
    writes = list(re.finditer(_WRITE.format(name=escaped), text))
    if not writes:
        return text, 0

    def collide(read: re.Match[str]) -> str:
        data, address = read["data"], read["address"]
        hit = " || ".join(
            f"(({write['enable']}) && ({write['address']}) == ({address}))" for write in writes
        )
        # One statement, because it may stand behind an `if`.
        return f"begin {read[0]} if ({hit}) {data} <= ~{name}[{address}]; end"

    return re.subn(_READ.format(name=escaped), collide, text)
