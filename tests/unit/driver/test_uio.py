"""The UIO transport on plain files: waiting without an interrupt, locks, missing devices."""

from __future__ import annotations

import errno
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from vitrify.arch import csr
from vitrify.arch.config import CONTRACT_VERSION
from vitrify.arch.errors import BackendError, InputError
from vitrify.arch.presets import preset
from vitrify.driver import CoreDriver, LinkError
from vitrify.driver import barrier as barriers
from vitrify.driver.uio import MappedTransport, UioTransport

ARCH = preset("nano")


@pytest.fixture
def device(tmp_path):
    """Files that look like a core's registers and a buffer."""
    registers = np.zeros(1 << csr.CSR_ADDRESS_BITS >> 2, "<u4")
    for name, value in (
        ("MAGIC", csr.MAGIC), ("VERSION", CONTRACT_VERSION), ("ARCH_HASH", ARCH.hash)
    ):
        registers[csr.BY_NAME[name].offset // 4] = value
    registers.tofile(tmp_path / "uio0")
    np.zeros(1 << 16, np.uint8).tofile(tmp_path / "udmabuf0")
    about = tmp_path / "class" / "udmabuf0"
    about.mkdir(parents=True)
    (about / "size").write_text("65536\n")
    (about / "phys_addr").write_text("0x10000000\n")
    return tmp_path


def open_device(folder):
    return UioTransport(str(folder / "uio0"), devices=folder, buffers=folder / "class")


def test_registers_and_memory(device):
    with open_device(device) as transport:
        assert (transport.memory_base, transport.memory_size) == (0x1000_0000, 1 << 16)
        transport.write_memory(6, np.arange(4, dtype=np.uint8))
        assert transport.read_memory(6, 4).tolist() == [0, 1, 2, 3]
        assert CoreDriver(transport, ARCH).read("MAGIC") == csr.MAGIC
    assert (device / "udmabuf0").read_bytes()[6:10] == b"\0\1\2\3"


def test_without_an_interrupt_it_polls(device, monkeypatch):
    """The kernel refuses to arm what the device tree does not name."""
    writes, slept = [], []

    def refuse(file, data):
        writes.append(data)
        raise OSError(errno.EIO, "Input/output error")

    with open_device(device) as transport:
        monkeypatch.setattr("vitrify.driver.uio.os.write", refuse)
        monkeypatch.setattr("vitrify.driver.uio.time", SimpleNamespace(sleep=slept.append))
        for _ in range(5):
            transport.wait(0.3)
        transport.wait(1e-6)
    assert slept == [0.0005] * 5 + [1e-6]
    assert len(writes) == 1


def test_other_faults_of_waiting_are_named(device, monkeypatch):
    def gone(file, data):
        raise OSError(errno.ENODEV, "No such device")

    with open_device(device) as transport:
        monkeypatch.setattr("vitrify.driver.uio.os.write", gone)
        with pytest.raises(LinkError, match="cannot wait for the interrupt: No such device"):
            transport.wait(0.1)


def test_memory_is_ordered_against_registers(monkeypatch):
    order = []

    class Array(np.ndarray):
        def __setitem__(self, key, value):
            order.append(self.dtype.name)
            super().__setitem__(key, value)

        def __getitem__(self, key):
            order.append(f"read {self.dtype.name}")
            return super().__getitem__(key)

    monkeypatch.setattr("vitrify.driver.uio.barrier", lambda: order.append("barrier"))
    transport = MappedTransport(
        np.zeros(4, "<u4").view(Array), np.zeros(64, np.uint8).view(Array), 0
    )
    transport.write_memory(0, np.ones(4, np.uint8))
    transport.write_register(4, 1)
    assert [step for step in order if "read" not in step] == ["uint8", "barrier", "uint32"]
    order.clear()
    transport.read_register(4)
    transport.read_memory(0, 4)
    assert order[:3] == ["read uint32", "barrier", "read uint8"]


def test_the_barrier_is_code_that_returns(monkeypatch):
    for _ in range(3):
        barriers.barrier()
    barriers._compiled.cache_clear()
    monkeypatch.setattr("vitrify.driver.barrier.platform.machine", lambda: "pdp11")
    barriers.barrier()
    barriers._compiled.cache_clear()
    assert {len(code) for name, code in barriers._CODE.items() if name != "x86_64"} == {8}


HOLD = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def holding(path, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_or_gets_a_sentence(device):
    other = holding(device / "uio0", 60)
    with open_device(device) as transport:
        with pytest.raises(BackendError, match=r"in use by another process .* more than 0\.2 s"):
            CoreDriver(transport, ARCH, patience=0.2)
        other.kill()
        other.wait()
        CoreDriver(transport, ARCH, patience=0.2)
        other = holding(device / "uio0", 0.5)
        CoreDriver(transport, ARCH, patience=30)
        other.wait()


def test_a_second_session_of_this_process_waits_too(device):
    with open_device(device) as one, open_device(device) as two:
        with (
            one.lock.held(1), one.lock.held(1),
            pytest.raises(BackendError, match="in use by another"),
        ):
            CoreDriver(two, ARCH, patience=0.1)
        CoreDriver(two, ARCH, patience=0.1)


def test_missing_devices_are_named(device):
    with pytest.raises(InputError, match=r"cannot open the device '.*uio7'"):
        UioTransport(str(device / "uio7"), devices=device, buffers=device / "class")
    (device / "class" / "udmabuf0" / "size").unlink()
    with pytest.raises(InputError, match="is u-dma-buf loaded"):
        open_device(device)
