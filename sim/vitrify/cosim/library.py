"""The simulated core as a shared library: emit, verilate, compile, keep.

A build depends on the Verilog, the harness, the options and the versions of the tools; an equal
one is taken from the cache (:mod:`vitrify.cosim.cache`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vitrify.arch import csr
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError
from vitrify.arch.sdram import SdramPart

from . import cache, toolchain

#: File in a build folder.
LIBRARY = "core.so"
_HARNESSES = Path(__file__).parent / "harness"
#: Name that Verilator gives the class of the top module.
_PREFIX = "Vcore"
#: C++ files are split at about this many statements, so that compiling them needs little memory.
_SPLIT = 20_000
_VERILATOR = (
    "--cc",
    "--exe",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-timing",
    "--no-assert",
    "-Wno-fatal",
    "-Wno-lint",
    "--prefix",
    _PREFIX,
    "--output-split",
    str(_SPLIT),
    "--output-split-cfuncs",
    str(_SPLIT // 10),
)
_CFLAGS = ("-fPIC", "-fno-semantic-interposition", "-w")
#: Of what runs every cycle, of what runs once, of Verilator's run-time library.
_OPTIMISE = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")
#: A hung or runaway compiler ends after this many seconds.
_TIMEOUT = 3600

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Say nothing."""


def core_library(arch: ArchConfig, *, fst: bool = False, say: Say = _silent) -> Path:
    """The shared library of ``arch``'s core, built if needed.

    Parameters
    ----------
    arch : the core
    fst : able to write waveforms (slower)
    say : told in a word or two what takes time
    """

    def verilog() -> str:
        from vitrify.rtl.emit import verilog

        say(f"elaborating {arch.name}")
        return verilog(arch, trace=True)

    # Elaborating takes longer than looking at what it depends on.
    shape = arch.to_dict()
    for outside in ("dram", "clock_mhz"):  # the Verilog knows neither
        del shape[outside]
    identity = json.dumps([_sources(), metadata.version("amaranth"), shape])
    return _cached(verilog, identity, arch, fst, say)


def build(text: str, arch: ArchConfig, *, fst: bool = False, say: Say = _silent) -> Path:
    """As :func:`core_library`, for Verilog whose top module has the ports of ``arch``'s core.

    Raises
    ------
    BackendError
        If a tool is missing or fails; the message names the log.
    """
    return _cached(lambda: text, text, arch, fst, say)


def board_library(
    text: str, arch: ArchConfig, sdram: SdramPart, *, fst: bool = False, say: Say = _silent
) -> Path:
    """As :func:`build`, for a board with a serial line and an SDRAM around ``arch``'s core."""
    flags = (f"-DVFY_SDRAM_BITS={sdram.bits}",)
    return _cached(lambda: text, text, arch, fst, say, BOARD, flags)


@dataclass(frozen=True)
class Harness:
    """A C++ world, and (a pattern of) a port by which its top module is known."""

    file: str
    port: str


CORE = Harness("harness.cpp", "m_axi0?_arvalid")
BOARD = Harness("board.cpp", "sdram_ras_n")


def _cached(
    verilog: Callable[[], str], identity: str, arch: ArchConfig, fst: bool, say: Say,
    harness: Harness = CORE, more: tuple[str, ...] = (),
) -> Path:
    source = [path.read_text() for path in (_HARNESSES / harness.file, *_HARNESSES.glob("*.h"))]
    flags = [
        *_CFLAGS,
        *more,
        f"-DVFY_DEPTH={arch.depth}",
        f"-DVFY_PORTS={arch.ports}",
        f"-DVFY_BUS={arch.port_bytes}",
        f"-DVFY_FST={int(fst)}",
        *(f"-DVFY_{name}={number}" for number, (name, _) in enumerate(csr.COUNTERS)),
    ]
    tools = [toolchain.verilator_version(), _version(_compiler()), _VERILATOR, _OPTIMISE, fst]
    root = cache.root()
    folder = root / f"{arch.name}-{_digest(json.dumps([identity, source, flags, tools]))}"
    library = folder / LIBRARY
    runtime = root / f"runtime-{_digest(json.dumps([_CFLAGS, tools]))}"
    with toolchain.locked(root / f"{folder.name}.lock"):
        if not cache.trusted(library):
            cache.drop(folder)
            _compile(verilog(), flags, fst, folder, runtime, say, harness)
    return library


def _sources() -> str:
    """Digest of everything that the Verilog of a core is made from."""
    import vitrify.arch
    import vitrify.rtl

    digest = hashlib.sha256()
    for package in (vitrify.arch, vitrify.rtl):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _compile(
    text: str, flags: list[str], fst: bool, folder: Path, runtime: Path, say: Say, harness: Harness
) -> None:
    """Build in a temporary folder, then move the result to its place in one step."""
    tap = re.search(r"\btrace_valid\b", text) is not None
    flags = [*flags, f"-DVFY_TAP={int(tap)}"]
    libraries: list[str] = []
    options = [*_VERILATOR, "--top-module", _top_module(text, harness)]
    options += ["--trace-fst"] if fst else []
    log = folder.parent / f"{folder.name}.log"
    with cache.workshop(folder.parent, folder.name) as work:
        harnesses = Path(shutil.copytree(_HARNESSES, work / _HARNESSES.name))
        if fst and not _has_header("lz4.h"):
            flags.append(f"-I{harnesses / 'fallback'}")
            libraries.append("LDLIBS=-shared -lz -lpthread")
        source = work / "core.v"
        source.write_text(text)
        environment = {**os.environ, **toolchain.verilator_environment(work / "verilator")}
        objects = work / "obj"
        say("verilating")
        _tool(
            [
                "verilator",
                *options,
                "--Mdir",
                str(objects),
                "-CFLAGS",
                " ".join(flags),
                "-LDFLAGS",
                "-shared",
                "-o",
                LIBRARY,
                str(harnesses / harness.file),
                str(source),
            ],
            environment,
            log,
        )
        # Verilator's run-time library is the same for every core: `make` finds it compiled.
        for built in runtime.glob("verilated*.o") if cache.private(runtime) else ():
            shutil.copy(built, objects)
        say("compiling the simulator")
        _tool(
            [
                "make",
                "-s",
                "-j1",
                "-C",
                str(objects),
                "-f",
                f"{_PREFIX}.mk",
                *_OPTIMISE,
                *libraries,
            ],
            environment,
            log,
        )
        _keep_runtime(objects, runtime)
        cache.keep(objects / LIBRARY, folder)
    log.unlink(missing_ok=True)


def _keep_runtime(objects: Path, runtime: Path) -> None:
    if not cache.private(runtime):
        return
    for built in objects.glob("verilated*.o"):
        handle, partial = tempfile.mkstemp(dir=runtime, suffix=".partial")
        os.close(handle)
        shutil.copy(built, partial)
        Path(partial).replace(runtime / built.name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tool(command: list[str], environment: dict[str, str], log: Path) -> None:
    with log.open("a") as file:
        try:
            code = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT,
                check=False,
            ).returncode
        except FileNotFoundError:
            raise BackendError(f"building the simulator needs {command[0]!r}; install it") from None
        except subprocess.TimeoutExpired:
            raise BackendError(f"{command[0]!r} ran for more than {_TIMEOUT} s") from None
    if code:
        raise BackendError(f"{command[0]!r} failed to build the simulator; its log is {log}")


def _has_header(name: str) -> bool:
    """Whether the C++ compiler finds a system header."""
    return (
        subprocess.run(
            [_compiler(), "-x", "c++", "-E", "-"],
            input=f"#include <{name}>\n",
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _version(compiler: str) -> str:
    try:
        return subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        raise BackendError(
            f"the RTL simulator needs a C++ compiler, and {compiler!r} does not work; install g++"
        ) from None


def _top_module(text: str, harness: Harness) -> str:
    """The module with the ports that the harness drives."""
    for name, body in re.findall(r"^module\s+(\\?\S+?)\s*\((.*?)\);", text, re.M | re.S):
        if re.search(rf"\b{harness.port}\b", body):
            return name
    raise BackendError(f"the Verilog has no module with a port {harness.port}")
