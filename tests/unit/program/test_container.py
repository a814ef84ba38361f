"""Program files: every bit comes back, every damage is one clear sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib

import numpy as np
import pytest

from tests.unit.program.cases import ARCH, copy_program
from vitrify.arch import isa
from vitrify.arch.errors import InputError, ProgramError
from vitrify.arch.presets import preset
from vitrify.program import LayerInfo, OutputSpec, Program, TensorInfo, container


def layer() -> LayerInfo:
    tensor = TensorInfo(name="t", rows=9, channels=12, bits=16, address=7, stride=2, first_row=1)
    return LayerInfo(name="fc", instruction=0, macs=12345678901, tensor=tensor, stream_bytes=64)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.vfy"
    copy_program().save(path)
    return path


def test_round_trip_keeps_everything(saved):
    scale = np.random.default_rng(1).random(12)
    out = OutputSpec(name="y", rows=9, channels=12, scale=scale, shape=(108,))
    program = copy_program(outputs=(out,))
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
        (lambda h: h.pop("outputs"), "lacks the field 'outputs'"),
        (lambda h: h["input"].update(colour=1), "input has an unknown field 'colour'"),
        (lambda h: h.update(extra=1), "unknown field 'extra'"),
        (lambda h: h.update(instruction_count=1e9), "an integer from 1 to 16777216, not 1000"),
        (lambda h: h.update(instruction_count=True), "instruction_count must be an integer"),
        (lambda h: h.update(model=["x"]), "model must be a text"),
        (lambda h: h.update(model="x" * 5000), "a text of at most 4096 characters"),
        (lambda h: h["arch"].update(name="/tmp/evil"), "the name of an arch must be"),
        (lambda h: h["arch"].update(clock_mhz=0), "clock_mhz must be a number above 0"),
        (lambda h: h.update(arch=[]), "arch must be an object"),
        (lambda h: h.update(batch=-1), "batch must be an integer from 1 to 4, not -1"),
        (lambda h: h["input"].update(shape=[3, 65536, 65536]), "more than 67,108,864 values"),
        (lambda h: h["input"].update(shape=[3, 4]), r"input\.shape must be a list of 3, not"),
        (lambda h: h["input"].update(blocks=[[0, 1 << 40]]), r"blocks\[0\]\[1\] must be"),
        (lambda h: h["input"].update(blocks=[[0, 1], [0, 8]]), "do not cover its rows once"),
        (lambda h: h["input"].update(multiplier=["a"]), r"multiplier\[0\] must be a number"),
        (lambda h: h["input"].update(offset=[1e308] * 3), r"offset\[0\] must be a number"),
        (lambda h: h["outputs"][0].update(rows=1 << 20, channels=1 << 20, shape=[1 << 20, 1 << 20]),
         "takes 1,.* bytes; at most"),
        (lambda h: h["outputs"].append(h["outputs"][0]), "two outputs have the same name"),
        (lambda h: h["outputs"][0].update(bits=9), "cannot have the shape|bits"),
        (lambda h: h.update(outputs=[]), "outputs must be a list of 1 to 256"),
        (lambda h: h.update(tasks=[{"name": "t", "count": 1000}]), "count must be an integer"),
        (lambda h: h.update(metadata={"source": 7}), "source must be an object"),
        (lambda h: h.update(metadata={"x": "y" * 70000}), "more than 65536 bytes"),
        (lambda h: h.update(layers=[{}]), "lacks the field"),
        (lambda h: h["sections"][0].update(size=-1), "size must be an integer"),
        (lambda h: h["sections"][0].update(name="code"), "unknown section 'code'"),
        (lambda h: h["sections"].append(h["sections"][0]), "sections must be a list of 1, not"),
        (lambda h: h.update(sections={}), "sections must be a list"),
        (lambda h: h["input"].update(rows=3), "cannot have 3 rows"),
        (lambda h: h["outputs"][0].update(shape=[1]), "cannot have the shape"),
        (lambda h: h["outputs"][0].update(grid=[1]), "cannot have the shape"),
        (lambda h: h["outputs"][0].update(grid=[1], steps=[1]), "cannot have the shape"),
        (lambda h: h["outputs"][0].update(grid=[0]), r"grid\[0\] must be an integer"),
        (lambda h: h.update(instruction_count=99), "do not fit an image"),
        (lambda h: h["input"].update(preprocess="zoom=3"), "zoom=3"),
    ],
)
def test_wrong_headers(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(ProgramError, match=message):
        Program.load(saved)


@pytest.mark.parametrize(("text", "message"), [
    (b"[]", "the header must be an object"),
    (b"{", "no JSON"),
    (b"\xff", "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b'{"batch": ' + b"9" * 5000 + b"}", "no JSON"),
    (b'{"batch": NaN}', "holds NaN"),
    (b'{"batch": 1, "batch": 2}', "the field 'batch' twice"),
    (b'{"a": ' * 50_000, "no JSON"),
])
def test_headers_that_are_none(text, message):
    head = (container.MAGIC, container.VERSION, len(text), zlib.crc32(text))
    data = struct.pack("<8sIII", *head) + text
    with pytest.raises(ProgramError, match=message):
        Program.from_bytes(data)


def with_code(*ops):
    code = b"".join(map(isa.pack, ops))
    return copy_program(image=np.frombuffer(code, np.uint8), instruction_count=len(ops))


MOVE = {"addr": 3, "stride": 5, "rows": 9, "words": 2}
END = isa.make(isa.Opcode.END)


@pytest.mark.parametrize(("ops", "message"), [
    ([isa.make(isa.Opcode.LOAD, region=1, **MOVE)], "one END, its last instruction"),
    ([END, END], "one END, its last instruction"),
    ([isa.make(isa.Opcode.LOAD, region=1, **{**MOVE, "addr": 2000}), END],
     r"instruction 0 \(LOAD\) needs 2042 words of the token memory, and there are 1536"),
    ([isa.make(isa.Opcode.LOAD, region=1, **{**MOVE, "rows": 4096}), END], "region INPUT"),
    ([isa.make(isa.Opcode.LOAD, region=1, offset=4, **MOVE), END], "no multiple of 8"),
    ([isa.make(isa.Opcode.STORE, region=0, **MOVE), END], "something else than the output"),
    ([isa.make(isa.Opcode.LOAD_INDEX, region=0, base=16000, count=9), END], "row indices"),
    ([isa.make(isa.Opcode.ROUTE, experts=8, choices=4, wait_distance=1), END], "wait_distance"),
    ([isa.make(isa.Opcode.ROUTE, joins=1, rows=3), END], "have no room for its 3 rows"),
    ([isa.make(isa.Opcode.MATMUL, rows=4096), END], "MATMUL.rows must be 1 to 32"),
    ([isa.make(isa.Opcode.MATMUL, k_tiles=1024), END], "dot product"),
    ([isa.make(isa.Opcode.MATMUL), END], "a weight stream of 0 words where"),
    ([isa.make(isa.Opcode.MATMUL, stationary=1, stats=2, stat_dst=16000), END], "row statistics"),
    ([isa.make(isa.Opcode.MATMUL, stationary=1, stats=1), END], "1/D with a shift of 0"),
    ([isa.make(isa.Opcode.MATMUL, stationary=1, dst_addr=9999), END], "words of the token memory"),
    ([isa.make(isa.Opcode.MATMUL, stationary=1), END], "belong to 0 instructions, and it has 1"),
    ([isa.make(isa.Opcode.LOAD, region=1, wait_distance=1, **MOVE), END],
     r"instruction 0 \(LOAD\): wait_distance is 1, and only 0 such"),
    ([isa.make(isa.Opcode.MATMUL, stationary=1, load_distance=3), END], "load_distance is 3"),
    ([isa.make(isa.Opcode.MATMUL, stationary=1, expert_rows=1), END], "no ROUTE comes before"),
])
def test_instructions_stay_in_their_core(ops, message, tmp_path):
    with pytest.raises(ProgramError, match=message):
        with_code(*ops).save(tmp_path / "x.vfy")
    assert list(tmp_path.iterdir()) == []


def test_illegal_instructions_are_named(saved):
    data = bytearray(saved.read_bytes())
    data[-64:] = bytes(64)
    def mend(header):
        header["sections"][0]["sha256"] = hashlib.sha256(data[-192:]).hexdigest()
    saved.write_bytes(data)
    rewrite(saved, mend)
    with pytest.raises(ProgramError, match="instruction 2 of program 'copy': not an instruction"):
        Program.load(saved)


def test_files_that_are_none(tmp_path):
    (tmp_path / "zero.vfy").symlink_to("/dev/zero")
    with pytest.raises(ProgramError, match="no regular file"):
        Program.load(tmp_path / "zero.vfy")


def test_other_version(saved):
    data = bytearray(saved.read_bytes())
    data[8] = 9
    saved.write_bytes(data)
    with pytest.raises(ProgramError, match="container version 9, this Vitrify reads 3"):
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
