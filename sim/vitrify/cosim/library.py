"""The simulated core as a shared library: emit, verilate, compile, keep.

A build depends on the Verilog, the harness, the options and the versions of the tools; an equal
one is taken from the cache.  ``VITRIFY_CACHE`` names another folder for it.
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
from pathlib import Path

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError

from . import toolchain

CACHE_VARIABLE = "VITRIFY_CACHE"
#: File in a build folder.
LIBRARY = "core.so"
_HARNESS = Path(__file__).parent / "harness" / "harness.cpp"
#: Name that Verilator gives the class of the top module.
_PREFIX = "Vcore"
#: C++ files are split at about this many statements, so that compiling them needs little memory.
_SPLIT = 20_000
_VERILATOR = (
    "--cc", "--exe", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-timing",
    "--no-assert", "-Wno-fatal", "-Wno-lint", "--prefix", _PREFIX,
    "--output-split", str(_SPLIT), "--output-split-cfuncs", str(_SPLIT // 10),
)
_CFLAGS = ("-fPIC", "-fno-semantic-interposition", "-w")
#: Of what runs every cycle, of what runs once, of Verilator's run-time library.
_OPTIMISE = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")
#: A hung or runaway compiler ends after this many seconds.
_TIMEOUT = 3600

Say = Callable[[str], None]


def cache_root() -> Path:
    """Folder of the kept libraries."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else toolchain.build_root() / "cores"


def core_library(arch: ArchConfig, *, fst: bool = False, say: Say = lambda _: None) -> Path:
    """The shared library of ``arch``'s core, built if needed.

    Parameters
    ----------
    arch : the core
    fst : able to write waveforms (slower)
    say : told in a word or two what takes time
    """
    from vitrify.rtl.emit import verilog

    say(f"elaborating {arch.name}")
    return build(verilog(arch, trace=True), arch, fst=fst, say=say)


def build(text: str, arch: ArchConfig, *, fst: bool = False, say: Say = lambda _: None) -> Path:
    """Verilate and compile ``text``, whose only top module has the ports of a core.

    Raises
    ------
    BackendError
        If a tool is missing or fails; the message names the log.
    """
    top = _top_module(text)
    defines = {
        "VFY_DEPTH": arch.depth,
        "VFY_BUS": arch.bus_bytes,
        "VFY_TAP": int(re.search(r"\btrace_valid\b", text) is not None),
        "VFY_FST": int(fst),
    }
    options = [*_VERILATOR, "--top-module", top, *(["--trace-fst"] if fst else [])]
    flags = [*_CFLAGS, *(f"-D{name}={value}" for name, value in defines.items())]
    compiler = os.environ.get("CXX", "g++")
    harness = _HARNESS.read_text()
    tools = [toolchain.verilator_version(), _version(compiler)]
    key = json.dumps([text, harness, options, flags, _OPTIMISE, tools])
    folder = cache_root() / f"{arch.name}-{_digest(key)}"
    library = folder / LIBRARY
    if library.is_file():
        return library
    runtime = cache_root() / f"runtime-{_digest(json.dumps([*tools, _CFLAGS, _OPTIMISE, fst]))}"
    with toolchain.locked(folder.with_suffix(".lock")):
        if not library.is_file():
            _compile(text, options, flags, folder, runtime, say)
    return library


def _compile(
    text: str, options: list[str], flags: list[str], folder: Path, runtime: Path, say: Say
) -> None:
    """Build in a temporary folder, then move the result to its place in one step."""
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    log = folder.parent / f"{folder.name}.log"
    try:
        source = work / "core.v"
        source.write_text(text)
        environment = {**os.environ, **toolchain.verilator_environment()}
        objects = work / "obj"
        say("verilating")
        _tool([
            "verilator", *options, "--Mdir", str(objects), "-CFLAGS", " ".join(flags),
            "-LDFLAGS", "-shared", "-o", LIBRARY, str(_HARNESS), str(source),
        ], environment, log)
        # Verilator's run-time library is the same for every core: `make` finds it compiled.
        for built in runtime.glob("verilated*.o"):
            shutil.copy(built, objects)
        say("compiling the simulator")
        _tool([
            "make", "-s", "-j1", "-C", str(objects), "-f", f"{_PREFIX}.mk", *_OPTIMISE,
        ], environment, log)
        _keep_runtime(objects, runtime)
        result = work / "result"
        result.mkdir()
        shutil.move(objects / LIBRARY, result / LIBRARY)
        result.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    log.unlink(missing_ok=True)


def _keep_runtime(objects: Path, runtime: Path) -> None:
    runtime.mkdir(exist_ok=True)
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
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, timeout=_TIMEOUT, check=False,
            ).returncode
        except FileNotFoundError:
            raise BackendError(f"building the simulator needs {command[0]!r}; install it") from None
        except subprocess.TimeoutExpired:
            raise BackendError(f"{command[0]!r} ran for more than {_TIMEOUT} s") from None
    if code:
        raise BackendError(f"{command[0]!r} failed to build the simulator; its log is {log}")


def _version(compiler: str) -> str:
    try:
        return subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        raise BackendError(
            f"the RTL simulator needs a C++ compiler, and {compiler!r} does not work; install g++"
        ) from None


def _top_module(text: str) -> str:
    """The module with the AXI ports."""
    for name, body in re.findall(r"^module\s+(\\?\S+?)\s*\((.*?)\);", text, re.M | re.S):
        if "m_axi_arvalid" in body:
            return name
    raise BackendError("the Verilog has no module with m_axi ports")
