"""The C driver under compilers: no warning, small on ARM, and its transports."""

from __future__ import annotations

import ctypes
import fcntl
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support import c_driver
from tests.support.tools import need
from tests.unit.program.cases import ARCH, copy_program
from vitrify.arch import csr
from vitrify.arch.config import CONTRACT_VERSION
from vitrify.export import Run

#: Most bytes of code of the driver, packing and the mapped transport.
MOST_CODE = 10 << 10
ARM = ("-mcpu=cortex-a9", "-mfpu=neon", "-mfloat-abi=hard", "-mthumb", "-ffreestanding")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    program = copy_program()
    run = Run(np.zeros((1, program.input_bytes), np.uint8), (0,),
              np.zeros((1, program.output_bytes), np.uint8))
    return c_driver.exported(program, run, tmp_path_factory.mktemp("c"))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("standard", ["c99", "c11", "gnu17"])
def test_no_warning(folder, tmp_path, compiler, standard):
    need(compiler, compiler)
    subprocess.run(
        [compiler, *c_driver.FLAGS, "-Wsign-conversion", "-Wcast-qual", f"-std={standard}", "-O2",
         "-I", folder, "-o", tmp_path / "example", *sorted(folder.glob("*.c"))],
        check=True, timeout=120,
    )


def test_headers_are_c_plus_plus_too(folder, tmp_path):
    source = tmp_path / "main.cpp"
    source.write_text('#include "model.h"\n#include "vitrify_uio.h"\n#include "vitrify_regs.h"\n'
                      "int main() { return model_program.batch == 1u ? 0 : 1; }\n")
    subprocess.run(["g++", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-I",
                    folder, source], check=True, timeout=60)


def test_code_on_arm(folder, tmp_path):
    """What runs without an operating system, by ``size``."""
    gcc = need("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    objects = []
    for unit in c_driver.BARE:
        objects.append(tmp_path / f"{unit}.o")
        subprocess.run([gcc, *c_driver.FLAGS, *ARM, "-Os", "-I", folder, "-c", folder / unit, "-o",
                        objects[-1]], check=True, timeout=60)
    lines = subprocess.run(["arm-none-eabi-size", *objects], check=True, capture_output=True,
                           text=True).stdout.splitlines()[1:]
    text, data, bss = (sum(int(line.split()[i]) for line in lines) for i in range(3))
    assert 0 < text <= MOST_CODE
    assert (data, bss) == (0, 0)


class Uio(ctypes.Structure):
    """Room for ``vitrify_uio``; only its transport is looked at, through the library."""

    _fields_ = [("room", ctypes.c_uint64 * 64)]


@pytest.fixture
def device(tmp_path, folder):
    """Files that look like a core's registers and a buffer, and the transport to them."""
    registers = np.zeros(1 << csr.CSR_ADDRESS_BITS >> 2, "<u4")
    for name, value in (("MAGIC", csr.MAGIC), ("VERSION", CONTRACT_VERSION),
                        ("ARCH_HASH", ARCH.hash)):
        registers[csr.BY_NAME[name].offset // 4] = value
    registers.tofile(tmp_path / "uio0")
    np.zeros(1 << 16, np.uint8).tofile(tmp_path / "udmabuf0")
    (tmp_path / "size").write_text("65536\n")
    (tmp_path / "phys_addr").write_text("0x10000000\n")
    (tmp_path / "shim.c").write_text("""\
#include "model.h"
#include "vitrify_uio.h"
vitrify_transport *transport_of(vitrify_uio *uio) { return &uio->transport; }
unsigned size_of(void) { return (unsigned)sizeof(vitrify_uio); }
int32_t copy(vitrify_uio *uio, uint32_t at, const uint8_t *from, uint8_t *to, uint32_t size)
{
    int32_t code = uio->transport.write_memory(uio->transport.context, at, from, size);
    return (code != 0) ? code : uio->transport.read_memory(uio->transport.context, at, to, size);
}
int32_t wait_for(vitrify_uio *uio) { return uio->transport.wait(uio->transport.context); }
int32_t open_session(vitrify_uio *uio)
{
    static vitrify_session session;
    return vitrify_open(&session, &uio->transport, &model_program, 100u, 0u);
}
""")
    library = tmp_path / "uio.so"
    subprocess.run(
        ["gcc", "-std=c99", "-shared", "-fPIC", "-I", folder, "-o", library, tmp_path / "shim.c",
         folder / "vitrify_uio.c", folder / "model.c", *(folder / u for u in c_driver.BARE)],
        check=True, timeout=60,
    )
    loaded = ctypes.CDLL(str(library))
    assert loaded.size_of() <= ctypes.sizeof(Uio)
    names = [str(tmp_path / name).encode() for name in ("uio0", "udmabuf0", "")]
    return loaded, names, tmp_path


def test_uio(device):
    """Words and parts of words arrive; the program is uploaded; the lock is given back."""
    loaded, names, folder = device
    uio = Uio()
    assert loaded.vitrify_uio_open(ctypes.byref(uio), *names) == c_driver.OK
    assert loaded.vitrify_uio_open(ctypes.byref(Uio()), *names) == c_driver.BUSY
    rng = np.random.default_rng(1)
    memory = np.zeros(64, np.uint8)
    for at in range(0, 12, 2):
        for size in (2, 4, 6, 10, 16, 30):
            data, back = rng.integers(0, 256, size).astype(np.uint8), np.zeros(size, np.uint8)
            assert loaded.copy(ctypes.byref(uio), at, c_driver.pointer(data),
                               c_driver.pointer(back), size) == c_driver.OK
            assert (back == data).all()
            memory[at : at + size] = data
            found = np.fromfile(folder / "udmabuf0", np.uint8)[:64]
            assert (found == memory).all()
    assert loaded.open_session(ctypes.byref(uio)) == c_driver.OK
    image = copy_program().image
    assert (np.fromfile(folder / "udmabuf0", np.uint8)[: len(image)] == image).all()
    loaded.vitrify_uio_close(ctypes.byref(uio))
    with (folder / "uio0").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_uio_without_devices(device):
    loaded, (uio, buffer, about), folder = device
    made = ctypes.byref(Uio())
    assert loaded.vitrify_uio_open(made, b"/dev/nothing", buffer, about) == c_driver.LINK
    assert loaded.vitrify_uio_open(made, uio, b"/dev/nothing", about) == c_driver.LINK
    assert loaded.vitrify_uio_open(made, uio, buffer, b"/nothing") == c_driver.LINK
    before = len(list(Path("/proc/self/fd").iterdir()))
    (folder / "size").write_text("nonsense")
    assert loaded.vitrify_uio_open(made, uio, buffer, about) == c_driver.LINK
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_example_says_what_is_wrong(folder, tmp_path):
    subprocess.run(["gcc", "-std=c99", "-I", folder, "-o", tmp_path / "example",
                    *sorted(folder.glob("*.c"))], check=True, timeout=60)
    done = subprocess.run([tmp_path / "example", "/dev/nothing"], capture_output=True, text=True,
                          check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error -11: LINK (info 0x0)\n"
