"""The self-test of a core: a sound one passes, and each kind of fault is named."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from tests.support.command import vitrify
from vitrify.arch import csr
from vitrify.arch.errors import BackendError, CapacityError, ProgramError
from vitrify.arch.isa import Opcode
from vitrify.arch.presets import PRESETS, preset
from vitrify.cosim.transport import SimulatedTransport
from vitrify.driver import LinkError
from vitrify.selftest import Status, selftest
from vitrify.selftest.checks import PROGRAMS
from vitrify.selftest.speed import MEASURES, predicted

pytestmark = pytest.mark.slow
NANO = preset("nano")
SPEED = tuple(MEASURES)


class Faulty(SimulatedTransport):
    """A board on which something does not do what it should."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(NANO, memory=1 << 20)
        self.fault, self._worked = fault, False

    def _seen(self, offset: int, data: np.ndarray) -> np.ndarray:
        if self.fault == "data line":
            data[(np.arange(offset, offset + len(data)) % 64) == 9] |= 4
        if self.fault == "output" and self._worked and len(data) > 400:
            data[3] ^= 1
        return data

    def read_memory(self, offset: int, size: int) -> np.ndarray:
        if self.fault == "address line":
            offset &= ~(1 << 16)
        return self._seen(offset, super().read_memory(offset, size))

    def write_memory(self, offset: int, data: np.ndarray) -> None:
        if self.fault == "link" and len(data) > 5000:
            raise LinkError("the cable is out")
        self._worked = False
        if self.fault == "address line":
            offset &= ~(1 << 16)
        if self.fault == "cell" and offset <= 0x9100 < offset + len(data) and len(data) > 2:
            data = data.copy()
            data[0x9100 - offset] ^= 1
        super().write_memory(offset, data)

    def read_register(self, offset: int) -> int:
        value = super().read_register(offset)
        if self.fault == "register" and offset == csr.BY_NAME["INPUT_BASE_LO"].offset:
            value &= ~(1 << 20)
        return value

    def wait(self, seconds: float) -> None:
        super().wait(seconds)
        self._worked = True


def run(fault: str = "", memory: int = 1 << 16) -> dict[str, tuple[Status, str]]:
    transport = Faulty(fault)
    try:
        checks = list(selftest(transport, NANO, patience=5, memory=memory))
    finally:
        transport.close()
    return {check.name: (check.status, check.detail) for check in checks}


def test_a_sound_core():
    found = run()
    assert {status for status, _ in found.values()} == {Status.PASSED}
    assert list(found) == ["registers", "memory", *PROGRAMS, *SPEED]


@pytest.mark.parametrize(("fault", "check", "message"), [
    ("register", "registers", "INPUT_BASE_LO reads 0x"),
    ("data line", "memory", "byte 9 of a word of 64 at 0x.* reads .*: data lines 0x04"),
    ("address line", "memory", "are one place"),
    ("cell", "memory", "between 0x.* and 0x.* is not what was written"),
    ("output", "products, norms, attention, lists", "bytes of the output differ from golden"),
])
def test_faults_are_named(fault, check, message):
    status, detail = run(fault)[check]
    assert status is Status.FAILED
    assert re.search(message, detail), detail


def test_a_link_that_fails_ends_it():
    with pytest.raises(LinkError, match="the cable is out"):
        run("link")


def test_another_core():
    transport = Faulty()
    try:
        with pytest.raises(BackendError, match="arch hash"):
            next(selftest(transport, preset("ulx3s"), patience=5, memory=0))
    finally:
        transport.close()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "zcu102"])
def test_programs_of_every_preset(name):
    """Whatever a preset has is tried; together they have every instruction."""
    arch = preset(name)
    kinds = set()
    for what, make in PROGRAMS.items():
        lacks = {"convolutions, products of rows, sums": not arch.patterns,
                 "routing": not arch.experts}.get(what, False)
        if lacks:
            with pytest.raises(ProgramError, match=f"arch '{name}' is without"):
                make(arch, 1)
            continue
        job = make(arch, 1)
        assert job.output_known.mean() > 0.7
        kinds |= {op.opcode for op in job.code()}
    if arch.experts and arch.patterns:
        assert kinds == set(Opcode)


@pytest.mark.parametrize("what", SPEED)
def test_speed_is_predicted_for_every_preset(what):
    make, counter = MEASURES[what]
    for name in PRESETS:
        arch = preset(name)
        job = make(arch)
        cycles = predicted(arch, job)
        moved = sum(
            op.rows * op.words * arch.depth for op in job.code()
            if op.opcode in (Opcode.LOAD, Opcode.STORE)
        )
        if counter:
            assert 0.4 * arch.bus_bytes < moved / cycles <= arch.bus_bytes
        else:
            assert moved == 0
            assert cycles < 1000


def test_command(capsys):
    few = ("selftest", "--backend", "board:simulation", "--arch", "nano", "--memory", "4096")
    said = vitrify(capsys, *few)
    assert "golden" in said
    assert "the core on simulation is 'nano', and works" in said
    data = json.loads(vitrify(capsys, *few, "--json"))
    assert {check["status"] for check in data["checks"]} == {"passed"}


@pytest.mark.parametrize(("arguments", "message"), [
    (("--backend", "golden", "--arch", "nano"), "--backend 'golden' is no board"),
    (("--backend", "board:", "--arch", "nano"), "is no board; give board:DEVICE"),
    (("--backend", "board:nothing", "--arch", "nano"), "no board is called 'nothing'"),
    (("--backend", "board:simulation", "--arch", "nano", "--memory", "-2"), "must not be negative"),
])
def test_refused(capsys, arguments, message):
    assert message in vitrify(capsys, "selftest", *arguments, code=2)


def test_small_memories_leave_programs_out():
    tiny = dataclasses.replace(NANO, name="tiny", bank_words=64)
    with pytest.raises(CapacityError, match="'tiny' has 64 words a bank; the program needs more"):
        PROGRAMS["convolutions, products of rows, sums"](tiny, 1)
