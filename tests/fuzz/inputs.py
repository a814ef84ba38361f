"""Files of others, damaged: every command ends in a result or in a sentence.

``python -m tests.fuzz inputs --count 10000 --seed 1`` runs every kind in turn, in this process;
``--case N`` repeats one with a traceback.  Bars: no exception but our own, nothing over 20 s of the
processor, nothing over 4 GiB.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import hashlib
import io
import json
import logging
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import yaml
from PIL import Image

from tests.fuzz import limits, mutate
from tests.support.synthetic import vision_transformer
from tests.unit.program.cases import copy_program
from vitrify.arch import isa
from vitrify.arch.errors import ProgramError, VitrifyError
from vitrify.arch.load import load as load_arch
from vitrify.arch.presets import PRESETS, preset
from vitrify.cli import info
from vitrify.compiler import compile_graph, compile_model
from vitrify.estimate import estimate
from vitrify.program import Program
from vitrify.runtime import InferenceSession
from vitrify.runtime.images import read_batch, read_floats

DATA = Path(__file__).parents[1] / "data"
#: A structural change to a model is compiled, too, in one of so many cases.
_COMPILED = 25
_HEAD = struct.Struct("<8sIII")

Rng = np.random.Generator


@cache
def _models() -> list[bytes]:
    names = ("timm_ts17", "timm_dynamo18", "hf_deit_ts17", "timm_ort_fused", "moe_batched_dynamo20",
             "moh_plain_shared_dynamo18")
    return [(DATA / f"{name}.onnx").read_bytes() for name in names]


@cache
def _programs() -> list[bytes]:
    result = []
    for program in (copy_program(), compile_graph(vision_transformer(seed=1), preset("nano"))):
        with tempfile.TemporaryDirectory() as folder:
            program.save(Path(folder) / "p.vfy")
            result.append((Path(folder) / "p.vfy").read_bytes())
    return result


@cache
def _pictures() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 20, 3)).astype(np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (24, 20)).astype(np.uint16))
    exif = colour.getexif()
    exif[0x0112] = 6
    result = []
    for image, kind, options in (
        (colour, "png", {}), (colour, "jpeg", {"exif": exif}), (colour, "gif", {}),
        (colour, "tiff", {"compression": "tiff_lzw"}), (colour, "webp", {}), (colour, "bmp", {}),
        (colour, "ppm", {}), (deep, "png", {}), (deep, "tiff", {}),
        (colour.convert("CMYK"), "jpeg", {}), (colour.quantize(9), "png", {}),
        (colour, "gif", {"save_all": True, "append_images": [colour.rotate(90)]}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        result.append((kind, buffer.getvalue()))
    return result


def onnx_bytes(rng: Rng, folder: Path) -> None:
    """A model file with damaged bytes."""
    path = folder / "model.onnx"
    path.write_bytes(mutate.content(rng, _models()[int(rng.integers(len(_models())))]))
    info.of_model(path)


def onnx_structure(rng: Rng, folder: Path) -> None:
    """A model whose graph says something else; some are compiled."""
    path = folder / "model.onnx"
    source = onnx.load_from_string(_models()[int(rng.integers(len(_models())))])
    path.write_bytes(mutate.graph(rng, source).SerializeToString())
    found = info.of_model(path)
    if found["on the core"] == "yes" and rng.integers(_COMPILED) == 0:
        from vitrify.cli.models import image_input

        images = rng.normal(size=(4, *image_input(path)[1])).astype(np.float32)
        compile_model(path, preset("ulx3s"), images)


def program(rng: Rng, folder: Path) -> None:
    """A program with right checksums and wrong content: read, run on golden, estimated."""
    data = _programs()[int(rng.integers(len(_programs())))]
    magic, version, length, _ = _HEAD.unpack_from(data)
    header = json.loads(data[_HEAD.size : _HEAD.size + length])
    image = data[_HEAD.size + length :]
    match int(rng.integers(4)):
        case 0:
            sections = header.pop("sections")
            header = mutate.plain(rng, header)
            header.setdefault("sections", sections)
        case 1:
            image = _instructions(rng, image, header["instruction_count"])
        case 2:
            header, image = mutate.plain(rng, header), mutate.content(rng, image)
        case _:
            return _use(mutate.content(rng, data))
    if isinstance(header.get("sections"), list) and len(header["sections"]) == 1:
        row = header["sections"][0]
        if isinstance(row, dict) and rng.random() < 0.97:
            row.update(size=len(image), sha256=hashlib.sha256(image).hexdigest())
    text = json.dumps(header).encode()
    return _use(_HEAD.pack(magic, version, len(text), zlib.crc32(text)) + text + image)


def _instructions(rng: Rng, image: bytes, count: int) -> bytes:
    """Fields of some instructions changed, their checksums right."""
    changed, size = bytearray(image), isa.INSTRUCTION_BYTES
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(count)) * size
        op = isa.unpack(bytes(changed[at : at + size]))
        fields = isa.FORMATS[op.opcode].fields
        if not fields or rng.integers(10) == 0:
            opcode = list(isa.Opcode)[int(rng.integers(len(isa.Opcode)))]
            changed[at : at + size] = isa.pack(isa.make(opcode))
            continue
        field = fields[int(rng.integers(len(fields)))]
        high = min(field.max, field.low + int(rng.choice([1, 3, 40, 1 << 30])))
        value = int(rng.integers(field.low, high + 1))
        changed[at : at + size] = isa.pack(isa.make(op.opcode, **{**op.values, field.name: value}))
    return bytes(changed)


def _use(data: bytes) -> None:
    loaded = Program.from_bytes(data)
    info.of_compiled(loaded)
    feed = {loaded.input.name: np.zeros((1, *loaded.input.shape), np.float32)}
    feed |= {task.name: 0 for task in loaded.tasks}
    # Lists that leave the memories are known when it runs.
    with contextlib.suppress(ProgramError):
        InferenceSession(loaded).run(None, feed)
    estimate(loaded)


def arch(rng: Rng, folder: Path) -> None:
    """An architecture: YAML of odd values, or damaged YAML."""
    name = list(PRESETS)[int(rng.integers(len(PRESETS)))]
    settings = mutate.plain(rng, PRESETS[name].to_dict() | {"base": name})
    text = yaml.safe_dump(settings, allow_unicode=True).encode("utf-8", "replace")
    if rng.random() < 0.5:
        text = mutate.content(rng, text)
    path = folder / "core.yaml"
    path.write_bytes(text)
    info.of_arch(load_arch(str(path)))


def picture(rng: Rng, folder: Path) -> None:
    """A damaged picture, for models of one, three and four channels."""
    kind, data = _pictures()[int(rng.integers(len(_pictures())))]
    path = folder / f"p.{kind}"
    path.write_bytes(mutate.content(rng, data))
    spec = ["augreg", "imagenet", "crop_mode=squash", "none"][int(rng.integers(4))]
    read_batch([path], "x", (int(rng.choice([1, 3, 4])), 16, 16), spec)


def array(rng: Rng, folder: Path) -> None:
    """A damaged NumPy file, or an odd array, as calibration and as the input of a session."""
    kinds = ["f4", "f8", "f2", "u1", "i8", "?", "c8", "U3", ">f4", "S2", "M8[s]"]
    dtype = np.dtype(kinds[int(rng.integers(len(kinds)))])
    shape = [(2, 3, 4, 8), (3, 4, 8), (2, 4, 8, 3), (0, 3, 4, 8), (), (7,)][int(rng.integers(6))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = (100 * rng.normal(size=shape)).astype(np.float64).astype(dtype)
    buffer = io.BytesIO()
    match int(rng.integers(3)):
        case 0:
            np.save(buffer, values)
        case 1:
            np.savez(buffer, x=values, y=values)
        case _:
            np.savez_compressed(buffer, image=values)
    data = buffer.getvalue()
    path = folder / "a.npz"
    path.write_bytes(mutate.content(rng, data) if rng.random() < 0.8 else data)
    try:
        read_floats([path], "image", (3, 4, 8), "mean=0.5")
    finally:
        InferenceSession(copy_program()).run(None, {"image": values})


KINDS: dict[str, Callable[[Rng, Path], None]] = {
    "ONNX bytes": onnx_bytes, "ONNX structure": onnx_structure, "program": program,
    "YAML": arch, "picture": picture, "array": array,
}


def run(seed: int, number: int) -> str:
    """One case: ``ok``, ``refused``, or what is wrong with it."""
    kind = list(KINDS)[number % len(KINDS)]
    before = limits.peak()
    try:
        with tempfile.TemporaryDirectory() as folder, limits.bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[kind](np.random.default_rng([seed, number]), Path(folder))
            result = "ok"
    except VitrifyError as error:
        long = len(str(error)) > 4000
        result = f"a message of {len(str(error))} characters" if long else "refused"
    except limits.HangError as error:
        result = f"hang: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        result = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    if limits.peak() - before > limits.MOST_BYTES:
        result = f"memory: {limits.peak() - before:,} bytes"
    return result


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz inputs", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--kind", choices=KINDS, help="only this one")
    parser.add_argument("--case", type=int, help="run one, with its traceback")
    options = parser.parse_args(arguments)
    faulthandler.enable()
    logging.disable()  # what libraries think of the models
    if options.case is not None:
        rng = np.random.default_rng([options.seed, options.case])
        with tempfile.TemporaryDirectory() as folder:
            KINDS[list(KINDS)[options.case % len(KINDS)]](rng, Path(folder))
        return 0
    _models(), _programs(), _pictures()
    limits.limit_memory()
    counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    slowest, wrong, began = (0.0, -1), 0, time.monotonic()
    for number in range(options.start, options.start + options.count):
        kind = list(KINDS)[number % len(KINDS)]
        if options.kind not in (None, kind):
            continue
        start = time.process_time()
        result = run(options.seed, number)
        slowest = max(slowest, (time.process_time() - start, number))
        good = result in ("ok", "refused")
        counts[kind][result if good else "wrong"] += 1
        if not good:
            wrong += 1
            print(f"case {number} ({kind}): {result[:300]!r}", flush=True)
        if number % 1000 == 999:
            print(f"{number + 1} cases, {wrong} wrong, {time.monotonic() - began:.0f} s",
                  file=sys.stderr, flush=True)
    print(f"seed {options.seed}, cases {options.start} to {options.start + options.count - 1}")
    for kind, found in counts.items():
        print(f"{kind:15} {dict(sorted(found.items()))}")
    print(f"slowest: {slowest[0]:.1f} s (case {slowest[1]}); "
          f"most memory: {limits.peak() / 2**20:.0f} MiB; wrong: {wrong}")
    return 1 if wrong else 0
