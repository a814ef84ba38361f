"""The simulator's harness, around a small hand-written machine with the ports of a core."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from tests.unit.program.cases import ARCH, copy_program
from vitrify.arch import csr, isa
from vitrify.arch.dram import Dram
from vitrify.arch.errors import BackendError, InputError
from vitrify.cosim import library
from vitrify.cosim.core import DramModel, SimulatedCore, Waveform
from vitrify.cosim.jobs import _Run, may_leave_out, run_jobs
from vitrify.program import LayerInfo, TensorInfo

SOURCE = (Path(__file__).parent / "copy_core.v").read_text().replace("15011c36", f"{ARCH.hash:08x}")
FAST = DramModel(latency=5, outstanding=2)
BEATS = 36


@pytest.fixture(scope="module")
def built():
    return library.build(SOURCE, ARCH)


@pytest.fixture
def core(built):
    simulated = SimulatedCore(built, ARCH, FAST)
    yield simulated
    simulated.close()


def program(beats=BEATS, **changes):
    """The copying machine takes PROGRAM_COUNT as its number of beats."""
    tensor = TensorInfo(name="t", rows=1, channels=16, bits=8, address=0, stride=2)
    layers = tuple(
        LayerInfo(name=f"layer{i}", instruction=i, macs=100, tensor=tensor)
        for i in range(BEATS // 4)
    )
    image = np.frombuffer(isa.pack(isa.make(isa.Opcode.END)) * BEATS, np.uint8)
    made = copy_program(image=image, instruction_count=BEATS, layers=layers, **changes)
    # more (or fewer) instructions than the image has
    object.__setattr__(made, "instruction_count", beats)
    return made


def regions(count, seed=2):
    return np.random.default_rng(seed).integers(0, 256, (count, 4 * BEATS)).astype(np.uint8)


def simulate(core, source=4000, target=12200, beats=33, size=16384):
    memory = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    before = memory.copy()
    core.attach(memory)
    core.write("PROGRAM_COUNT", beats)
    core.write("INPUT_BASE_LO", source)
    core.write("OUTPUT_BASE_LO", target)
    core.write("JOB_PUSH", 1)
    start = core.state().cycle
    stopped = core.run(100_000)
    return before, memory, stopped, core.state().cycle - start


def test_registers(core):
    assert core.read("MAGIC") == csr.MAGIC
    assert core.read("ARCH_HASH") == ARCH.hash
    assert core.counters()["CYCLES"] > 0


def test_copies_across_pages(core):
    before, memory, stopped, _ = simulate(core)
    assert stopped
    assert core.fault() == ""
    before[12200 : 12200 + 132] = before[4000 : 4000 + 132]
    assert (memory == before).all()
    assert (core.state().read_beats, core.state().write_beats) == (33, 33)


def test_random_stalls_change_only_the_time(built):
    times = []
    for stall in (0.0, 0.5):
        core = SimulatedCore(built, ARCH, dataclasses.replace(FAST, stall=stall, seed=7))
        before, memory, stopped, cycles = simulate(core)
        assert stopped
        assert (memory[12200 : 12200 + 132] == before[4000 : 4000 + 132]).all()
        times.append(cycles)
        core.close()
    assert times[1] > 1.3 * times[0]


def test_latency_and_bandwidth_cost_what_they_say(built):
    def cycles(**changes):
        core = SimulatedCore(built, ARCH, dataclasses.replace(FAST, **changes))
        try:
            # aligned: 8 bursts of 4 beats, read then write
            return simulate(core, source=4096, target=8192, beats=32)[3]
        finally:
            core.close()

    base = cycles()
    # Both the read and the write response of each of the 8 bursts wait 20 cycles more.
    assert cycles(latency=25) == base + 8 * 2 * 20
    # A beat of 4 bytes takes 8 cycles; the first of each burst of 4 is saved up meanwhile.
    slow = cycles(bytes_per_cycle=0.5)
    assert slow - base == pytest.approx(2 * 8 * 3 * 7, rel=0.1)
    assert cycles(bytes_per_cycle=64.0) == base


def test_a_shared_data_bus_costs_what_its_memory_says(built):
    """Bandwidth of both directions together, turn-arounds, row misses and refreshes."""

    def cycles(**dram):
        # 1 GHz: nanoseconds are cycles.
        times = Dram(**{"bandwidth": 4e9, "row_bytes": 1 << 20, **dram}).cycles(1000)
        model = dataclasses.replace(FAST, shared=times)
        core = SimulatedCore(built, ARCH, model)
        try:
            # 8 bursts of 4 beats of 4 bytes: read, then written.
            before, memory, stopped, count = simulate(core, source=4096, target=8192, beats=32)
            assert stopped
            assert (memory[8192:8320] == before[4096:4224]).all()
            return count
        finally:
            core.close()

    base = cycles()
    # A burst is one read and one write: a beat takes 8 cycles instead of one, either way.
    assert cycles(bandwidth=0.5e9) - base == pytest.approx(8 * (3 * 7 + 4 * 7), rel=0.1)
    # The first read changes no direction; latency hides some of the others.
    assert 15 * (50 - 10) <= cycles(turnaround_ns=50) - base <= 15 * 50
    assert cycles(row_miss_ns=50) - base == pytest.approx(50, abs=2)
    # Source and target in two rows of one bank, and in rows of two banks.
    assert cycles(row_miss_ns=50, row_bytes=4096, banks=1) - base == pytest.approx(16 * 50, rel=0.1)
    assert cycles(row_miss_ns=50, row_bytes=4096, banks=2) - base == pytest.approx(2 * 50, rel=0.1)
    refreshed = cycles(refresh_interval_ns=40, refresh_ns=20)
    assert refreshed > base + 20
    assert refreshed < 2.2 * base


def test_trace_outputs(core):
    core.record(True)
    before, *_ = simulate(core)
    records = core.take_records()
    assert len(records) == 33
    assert records["matmul"].tolist() == [i // 4 for i in range(33)]
    assert records["address"].tolist() == list(range(33))
    assert (records["mask"][:, 0] == 3).all()
    assert (records["low"][:, :4].reshape(-1) == before[4000 : 4000 + 132]).all()
    assert (np.diff(records["cycle"].astype(np.int64)) > 0).all()
    spans = core.spans()
    assert spans[:, 0].tolist() == [int(records["cycle"][4 * i]) for i in range(9)]
    assert spans[-1, 1] == records["cycle"][-1]
    assert len(core.take_records()) == 0


def test_jobs_run_in_order(core):
    inputs = regions(5)
    seen = []
    result = run_jobs(
        core, program(), inputs, progress=lambda done, total: seen.append((done, total))
    )
    assert (result.outputs == inputs).all()
    assert seen[-1] == (45, 45)
    assert result.layer_cycles is not None
    assert len(result.layer_cycles) == 9
    assert min(result.layer_cycles) > 0
    assert run_jobs(core, program(), inputs[:1]).outputs.tolist() == inputs[:1].tolist()


def test_a_read_outside_the_memory_is_a_fault(core):
    simulate(core, source=0x40000)
    assert core.fault() == "read outside the DRAM at 0x40000"
    assert core.read("ERROR_CODE") == csr.ErrorCode.BUS_READ


def test_a_core_that_stops_is_reported(core, monkeypatch):
    start = _Run.start
    broken = program()
    monkeypatch.setattr(
        "vitrify.cosim.jobs._Run.start",
        lambda run: (start(run), core.write("PROGRAM_COUNT", 10_000)),
    )
    with pytest.raises(BackendError, match=r"the core wrote outside the DRAM at 0x\w+, in cycle"):
        run_jobs(core, broken, regions(1))


def test_a_hang_says_where(core, monkeypatch):
    monkeypatch.setattr("vitrify.program.program._QUIET", 3000)
    with pytest.raises(BackendError, match=r"done nothing for \d+ cycles.*0 of 1 jobs.*CYCLES \d"):
        run_jobs(core, program(beats=0), regions(1))


def test_another_arch_is_refused(core, built):
    other = copy_program(arch=dataclasses.replace(ARCH, max_rows=64))
    with pytest.raises(BackendError, match=f"arch hash {ARCH.hash:08x}, and 'nano' has"):
        run_jobs(core, other, regions(1))
    with pytest.raises(BackendError, match="built for another arch"):
        SimulatedCore(built, dataclasses.replace(ARCH, depth=16), FAST)


def test_waveform(tmp_path):
    traced = library.build(SOURCE, ARCH, fst=True)
    core = SimulatedCore(traced, ARCH, FAST, Waveform(tmp_path / "x.fst"))
    simulate(core)
    core.close()
    assert (tmp_path / "x.fst").stat().st_size > 500


def test_no_waveform_without_the_right_build(built, tmp_path):
    with pytest.raises(BackendError, match="cannot write the waveform"):
        SimulatedCore(built, ARCH, FAST, Waveform(tmp_path / "x.fst"))


def test_builds_are_kept_and_failures_leave_nothing(built, tmp_path, monkeypatch):
    said = []
    assert library.build(SOURCE, ARCH, say=said.append) == built
    assert said == []
    monkeypatch.setenv("VITRIFY_CACHE", str(tmp_path))
    broken = re.sub(r"assign m_axi_arsize = 2;", "assign m_axi_arsize = ;", SOURCE)
    with pytest.raises(BackendError, match=r"'verilator' failed .* its log is .*\.log"):
        library.build(broken, ARCH)
    assert not list(tmp_path.glob("*/")), "a half-built folder was left"
    with pytest.raises(BackendError, match="no module with a port m_axi"):
        library.build("module nothing(input clk);\nendmodule\n", ARCH)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match="'no-such-compiler' does not work"):
        library.build(SOURCE, ARCH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency": -1}, "latency must be 0 to"),
        ({"outstanding": 0}, "outstanding bursts must be 1 to"),
        ({"bytes_per_cycle": 0.0}, "bandwidth must be at least"),
        ({"stall": 1.0}, "must be below 1"),
    ],
)
def test_wrong_dram(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(FAST, **change)


def test_only_experts_at_the_end_may_be_left_out():
    ops = [isa.make(isa.Opcode.MATMUL, expert_rows=rows) for rows in (1, 0, 1, 1)]
    image = np.frombuffer(b"".join(map(isa.pack, ops)), np.uint8)
    made = copy_program(image=image, instruction_count=len(ops))
    may = {count: may_leave_out(made, count) for count in range(-1, 7)}
    assert may == {-1: False, 0: True, 1: True, 2: True, 3: False, 4: False, 5: False, 6: False}
