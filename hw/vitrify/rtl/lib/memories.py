"""What tools have to be told about the memories in emitted Verilog."""

from __future__ import annotations

import re

#: An identifier; one that is escaped ends with a space.
_NAME = r"(?:\\\S+ |\w+)"
#: A memory with the attributes before it.
_MEMORY = re.compile(
    rf"^(?P<attributes>(?:  \(\* .+ \*\)\n)*)  reg (?P<width>\[[^\]]+\] )(?P<name>{_NAME}) "
    r"\[(?P<last>\d+):0\];\n", re.M,
)
#: Its contents at power-on, all of them zero.
_ZEROS = re.compile(rf"^  initial begin\n(?:    {_NAME}\[\d+\] = \d+'(?:h0+|d0);\n)+  end\n", re.M)
#: What Yosys lets every ``always @*`` read so that it runs at the start, too; a simulator that sets
#: it before the first of them waits needs another change.
_KICK = re.compile(r"^  reg (?P<name>\\\$auto\$verilog_backend\S+ ) = 0;\n", re.M)
_END = "endmodule\n"
_ESCAPE = "\\"
_MODULE = re.compile(r"^module .*?^endmodule\n", re.M | re.S)

#: ECP5: short memories in distributed RAM; a whole block RAM for each is what a core has least of.
_SHORT = 64
#: UltraScale+: memories from this many words on are block RAM unless they say otherwise.  Tools
#: would give them UltraRAM, which is the token memory's.
_ULTRA_WORDS = 4096
#: How Vivado is told that a word may be anything when it is read while it is written; Yosys calls
#: it ``no_rw_check``.  (Synplify's ``syn_ramstyle = "no_rw_check"`` is a style that Yosys does not
#: know, and refuses.)
_VIVADO = 'rw_addr_collision = "no"'
#: Defined by whoever simulates with unknown values: memories and what is read from them are zero
#: until they are written, not unknown.
SIMULATION = "VITRIFY_SIMULATION"
_ZERO_WORDS = """\
  initial begin : {block}
    integer word;
    for (word = 0; word <= {last}; word = word + 1) {name}[word] = 0;
  end
"""
#: The register behind a memory's read port: Yosys gives it no value at power-on.
_READ = re.compile(r"^  reg (?:\[[^\]]+\] )?(?P<name>_\d+_);\n", re.M)


def annotate(verilog: str, family: str) -> str:
    """Verilog without initial zeros, with attributes for a family of parts.

    A word of a memory that can be written is written before anything depends on it: contents at
    power-on would cost a third of the text, and UltraRAM has none.  Tables keep theirs.  Simulators
    in which a word is unknown until then get zeros by ``-DVITRIFY_SIMULATION``.

    Parameters
    ----------
    verilog : as Yosys writes it
    family : :attr:`vitrify.arch.config.Part.family`
    """
    return _MODULE.sub(lambda module: _module(_ZEROS.sub("", module[0]), family), verilog)


def _module(text: str, family: str) -> str:
    def mark(memory: re.Match[str]) -> str:
        if not re.search(rf"^\s+{re.escape(memory['name'])}\[[^\n]*<= ", text, re.M):
            return memory[0]  # a table
        attributes = ["no_rw_check = 1"]
        short = family == "ecp5" and int(memory["last"]) < _SHORT
        if short and "ram_style" not in memory["attributes"]:
            attributes.append('ram_style = "distributed"')
        if short:
            attributes.append('syn_ramstyle = "distributed"')
        deep = family == "xcup" and int(memory["last"]) >= _ULTRA_WORDS - 1
        if deep and "ram_style" not in memory["attributes"]:
            attributes.append('ram_style = "block"')
        if family in ("xc7", "xcup"):
            attributes.append(_VIVADO)
        block = f"\\zeros_of_{memory['name'].strip().removeprefix(_ESCAPE)} "
        zeros.append(_ZERO_WORDS.format(block=block, last=memory["last"], name=memory["name"]))
        return f"  (* {', '.join(attributes)} *)\n{memory[0]}"

    zeros = [f"  initial {read['name']} = 0;\n" for read in _READ.finditer(text)
             if re.search(rf"^\s+{read['name']} <= ", text, re.M)]
    zeros += [f"  initial #0 {kick['name']}= 1;\n" for kick in _KICK.finditer(text)]
    text = _MEMORY.sub(mark, text)
    if not zeros:
        return text
    return text.removesuffix(_END) + f"`ifdef {SIMULATION}\n{''.join(zeros)}`endif\n{_END}"
