"""Program files: every bit comes back, every damage is one clear sentence."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib

import numpy as np
import pytest

from tests.unit.program.cases import ARCH, copy_program
from vitrify.arch.errors import InputError, ProgramError
from vitrify.arch.presets import preset
from vitrify.program import LayerInfo, OutputSpec, Program, TensorInfo, container


def layer() -> LayerInfo:
    tensor = TensorInfo(name="t", rows=9, channels=12, bits=16, address=7, stride=2, first_row=1)
    return LayerInfo(name="fc", instruction=0, macs=12345678901, tensor=tensor, stream_bytes=64)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.vfy"
    copy_program(layers=(layer(),)).save(path)
    return path


def test_round_trip_keeps_everything(saved):
    scale = np.random.default_rng(1).random(12)
    out = OutputSpec(name="y", rows=9, channels=12, scale=scale, shape=(108,))
    program = copy_program(layers=(layer(),), outputs=(out,))
    program.save(saved)
    again = Program.load(saved)
    assert again.arch == program.arch
    assert again.layers == program.layers
    assert again.metadata == program.metadata
    assert (again.image == program.image).all()
    assert np.array_equal(again.outputs[0].scale, scale)
    assert dataclasses.replace(again.outputs[0], scale=0.0) == dataclasses.replace(out, scale=0.0)
    assert (again.input.multiplier == program.input.multiplier).all()
    assert again.input.shape == (3, 4, 8)
    assert again.input.preprocess == "mean=0.5,std=0.5"


def test_save_leaves_no_temporary_file(saved):
    assert [p.name for p in saved.parent.iterdir()] == ["m.vfy"]
    with pytest.raises(InputError, match="cannot write"):
        copy_program().save(saved.parent / "nowhere" / "m.vfy")


def test_failed_save_keeps_the_old_file(saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        copy_program(metadata={"x": object()}).save(saved)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


def test_every_truncation_is_refused(saved):
    data = saved.read_bytes()
    for length in [*range(40), *range(40, len(data), 97), len(data) - 1]:
        saved.write_bytes(data[:length])
        with pytest.raises(ProgramError, match=r"truncated|not a Vitrify program"):
            Program.load(saved)


def test_every_flipped_byte_is_refused(saved):
    data = saved.read_bytes()
    for at in range(0, len(data), 7):
        saved.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(ProgramError):
            Program.load(saved)


def test_surplus_bytes_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"x")
    with pytest.raises(ProgramError, match="1 bytes follow its end"):
        Program.load(saved)


def test_foreign_and_missing_files(tmp_path):
    (tmp_path / "x.vfy").write_bytes(b"PK\3\4 something else entirely")
    with pytest.raises(ProgramError, match="is not a Vitrify program"):
        Program.load(tmp_path / "x.vfy")
    with pytest.raises(ProgramError, match=r"cannot read program .*No such file"):
        Program.load(tmp_path / "missing.vfy")
    assert not container.is_program(tmp_path / "x.vfy")


def rewrite(path, change):
    """Edit the header and mend its checksum."""
    data = path.read_bytes()
    magic, version, length, _ = struct.unpack_from("<8sIII", data)
    header = json.loads(data[20 : 20 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<8sIII", magic, version, len(text), zlib.crc32(text))
        + text
        + data[20 + length :]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(arch_hash="00000000"), "another contract"),
        (lambda h: h["arch"].update(depth=7), "depth must be a power of two"),
        (lambda h: h["arch"].update(speed=7), "no setting 'speed'"),
        (lambda h: h.pop("outputs"), "malformed header"),
        (lambda h: h["input"].update(colour=1), "malformed header"),
        (lambda h: h["input"].update(rows=3), "cannot have 3 rows"),
        (lambda h: h["outputs"][0].update(shape=[1]), "cannot have the shape"),
        (lambda h: h.update(instruction_count=99), "do not fit an image"),
        (lambda h: h["input"].update(preprocess="zoom=3"), "zoom=3"),
    ],
)
def test_wrong_headers(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(ProgramError, match=message):
        Program.load(saved)


def test_other_version(saved):
    data = bytearray(saved.read_bytes())
    data[8] = 9
    saved.write_bytes(data)
    with pytest.raises(ProgramError, match="container version 9, this Vitrify reads 2"):
        Program.load(saved)


def test_other_arch_is_refused():
    program = copy_program()
    program.require_arch(dataclasses.replace(ARCH, name="mine", clock_mhz=1.0))
    with pytest.raises(ProgramError, match=r"compiled for arch 'nano' .* not for 'ulx3s'"):
        program.require_arch(preset("ulx3s"))


def test_sizes_and_roofline():
    program = copy_program(layers=(layer(),))
    assert program.input_bytes == program.output_bytes == 9 * 2 * 8
    assert program.dram_bytes == 3 * 64 + 2 * 144
    assert program.roofline_cycles == -(-12345678901 // 32)
    assert copy_program().roofline_cycles == 480 // 4
