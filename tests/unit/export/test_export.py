"""``vitrify export``: what the files say, and sentences for mistakes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.support.boards import small_program
from tests.support.command import vitrify
from tests.unit.program.cases import ARCH, copy_program
from vitrify.arch import csr
from vitrify.arch.memmap import ALIGNMENT
from vitrify.arch.names import port_names
from vitrify.arch.presets import PRESETS
from vitrify.export import Run, export_files
from vitrify.export.files import DRIVER, readmemh
from vitrify.export.layout import Layout
from vitrify.export.testbench import testbench as bench_of
from vitrify.program import pack_input, unpack_output


@pytest.fixture
def files(tmp_path):
    program, feed, golden = small_program(ARCH)
    program.save(tmp_path / "small.vfy")
    images, = feed.values()
    np.save(tmp_path / "x.npy", images)
    return tmp_path, program, images, golden


def test_files(capsys, files):
    folder, program, images, golden = files
    said = json.loads(vitrify(capsys, "export", folder / "small.vfy", "--input", folder / "x.npy",
                              "-o", folder / "out", "--json"))
    made = {p.relative_to(folder / "out").as_posix(): p.stat().st_size
            for p in (folder / "out").rglob("*") if p.is_file()}
    assert said == {"folder": str(folder / "out"), "jobs": 3, "files": made}
    assert {f"c/{path.name}" for path in DRIVER.iterdir()} < set(made)
    about = json.loads((folder / "out/memory_map.json").read_text())
    memory = np.zeros(about["memory"]["bytes"], np.uint8)
    for region in about["memory"]["regions"]:
        data = np.fromfile(folder / "out" / region["binary"], np.uint8)
        assert region["address"] % ALIGNMENT == region["step"] % ALIGNMENT == 0
        assert len(data) == region["count"] * region["step"]
        assert not memory[region["address"] : region["address"] + len(data)].any()
        memory[region["address"] : region["address"] + len(data)] = data
        words = (folder / "out" / region["readmemh"]).read_text().split()
        assert {len(word) for word in words} == {2 * about["core"]["port_bytes"]}
        assert b"".join(bytes.fromhex(word)[::-1] for word in words) == data.tobytes()
    _, source, target = about["memory"]["regions"]
    assert (memory[: len(program.image)] == program.image).all()
    regions = pack_input(ARCH, program.input, images)
    assert (np.lib.stride_tricks.sliding_window_view(memory, program.input_bytes)[
        source["address"] :: source["step"]][:3] == regions).all()
    # The outputs are those of a session.
    logits = np.stack([
        memory[target["address"] + i * target["step"] :][: program.output_bytes] for i in range(3)
    ])
    assert (unpack_output(ARCH, program.outputs[0], logits) == golden).all()
    for job, registers in enumerate(about["write_for_each_job"]):
        assert registers["INPUT_BASE_LO"] == source["address"] + job * source["step"]
        assert list(registers)[-1] == "JOB_PUSH"
    assert about["write_first"]["PROGRAM_COUNT"] == program.instruction_count
    assert set(about["write_first"]) < set(csr.BY_NAME)
    assert about["core"]["errors"] == {code.name: code.value for code in csr.ErrorCode}
    text = vitrify(capsys, "export", folder / "small.vfy", "--input", folder / "x.npy", "-o",
                   folder / "out", "--name", "tiny")
    assert "3 jobs of synthetic-1 for nano" in text
    assert '#include "tiny.h"' in (folder / "out/c/example.c").read_text()


def test_readmemh_by_hand():
    assert readmemh(np.arange(8, dtype=np.uint8), 4) == b"03020100\n07060504\n"


@pytest.mark.parametrize("arch", PRESETS.values(), ids=PRESETS)
def test_the_testbench_joins_every_port(arch):
    text = bench_of(Layout(copy_program(arch=arch), (0, 1)))
    assert not re.search(r"@[A-Z_]+@", text)
    for port in port_names(arch):
        assert f".{port}_wstrb(" in text


def damaged(case, folder):
    """Arguments that differ from the right ones, and what the sentence says."""
    (folder / "file").write_text("")
    (folder / "taken/c").mkdir(parents=True)
    (folder / "taken/program.bin").mkdir()
    (folder / "model.onnx").write_text("")
    np.save(folder / "wrong.npy", np.zeros((1, 1, 9, 9), np.float32))
    np.save(folder / "pixels.npy", np.zeros((1, 8, 8, 1), np.uint8))
    return {
        "name": (("--name", "Two Words"), r"--name must be up to 32 small letters.*'Two Words'"),
        "driver's name": (("--name", "vitrify"), r"--name must be .*not 'vitrify…'"),
        "a file": (("-o", folder / "file"), r"cannot write to '.*file': it is no directory"),
        "below a file": (("-o", folder / "file/x"), r"cannot write.*Not a directory"),
        "a directory": (("-o", folder / "taken"), r"program\.bin': it is a directory"),
        "shape": (("--input", folder / "wrong.npy"), r"the model takes \[N, 1, 8, 8\]"),
        "pixels": (("--input", folder / "pixels.npy"), r"give --preprocess or a float array"),
        "task": (("--task", "1"), r"--task 1: the model has no tasks"),
        "kernel": (("-o", "/proc/nothing"), r"cannot write to '/proc/nothing'"),
    }[case]


@pytest.mark.parametrize("case", ["name", "driver's name", "a file", "below a file", "a directory",
                                  "shape", "pixels", "task", "kernel"])
def test_one_sentence_and_code_2(capsys, files, case, monkeypatch):
    folder, *_ = files
    if case in ("name", "driver's name", "a file", "below a file"):
        # They are refused before golden runs, which takes minutes.
        monkeypatch.setattr("vitrify.cli.export._run", lambda *_: pytest.fail("golden ran"))
    arguments, sentence = damaged(case, folder)
    right = ["export", folder / "small.vfy", *([] if "--input" in arguments else
                                               ["--input", folder / "x.npy"])]
    before = sorted(folder.rglob("*"))
    where = [] if "-o" in arguments else ["-o", folder / "out"]
    assert re.search(sentence, vitrify(capsys, *right, *where, *arguments, code=2))
    assert sorted(folder.rglob("*")) == before


def test_a_model_is_no_program(capsys, files):
    folder, *_ = files
    (folder / "model.onnx").write_text("")
    line = vitrify(capsys, "export", folder / "model.onnx", "--input", folder / "x.npy", "-o",
                   folder / "out", code=2)
    assert "runs programs" in line
    assert "`vitrify compile model.onnx" in line


def test_too_much(capsys, files, monkeypatch):
    folder, *_ = files
    monkeypatch.setattr("vitrify.cli.export._MOST_BYTES", 1000)
    line = vitrify(capsys, "export", folder / "small.vfy", "--input", folder / "x.npy", "-o",
                   folder / "out", code=2)
    assert "with 3 pictures takes" in line
    assert "at most; give fewer pictures" in line


def test_tasks_and_several_pictures_a_job():
    """The jobs of a batch: registers TASK in the memory map, in C and in the testbench."""
    program = copy_program(batch=2)
    run = Run(np.zeros((2, program.input_bytes), np.uint8), (0x0102, 3),
              np.zeros((2, program.output_bytes), np.uint8))
    made = export_files(program, run)
    about = json.loads(made["memory_map.json"])
    assert [job["TASK"] for job in about["write_for_each_job"]] == [0x0102, 3]
    assert about["pictures_a_job"] == 2
    assert b"model_task[2] = {\n    258u, 3u\n}" in made["c/model.c"]
    assert b"0: task_of = 32'h00000102;" in made["testbench.v"]
