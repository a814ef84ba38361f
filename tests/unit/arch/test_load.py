"""Architecture files: what is right, and one sentence at once for everything else."""

from __future__ import annotations

import dataclasses
import time

import pytest

from vitrify.arch.config import Part
from vitrify.arch.dram import Dram
from vitrify.arch.errors import ConfigError
from vitrify.arch.load import MOST_BYTES, load
from vitrify.arch.presets import preset
from vitrify.arch.text import as_name, check_name, short, visible

BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 8)}]\n" for before, name in zip(
        "abcdefgh", "bcdefghi", strict=True)
)
WRONG = {
    "clock_mhz: 0": "clock_mhz must be a number above 0",
    "clock_mhz: .nan": "clock_mhz must be a number above 0",
    "clock_mhz: 1" + "0" * 4000: "not an integer of 13288 bits",
    "clock_mhz: fast": "not 'fast'",
    "depth: " + "9" * 5000: "holds a value that YAML cannot read",
    "depth: 0x" + "f" * 9000: "depth must be a power of two from 4 to 128, not an integer of 36000",
    "depth: true": "depth must be an integer, not True",
    "dram: {latency: -1}": "dram: latency must be 0 to 1000000, not -1",
    "dram: {outstanding: 0}": "dram: outstanding must be 1 to 1024, not 0",
    "dram: 7": "dram must hold settings, not 7",
    "part: {luts: many}": "luts must be an integer, not 'many'",
    "part: {name: 'x; exec rm'}": "the name of a part must be",
    "packing: 1": "packing must be true or false, not 1",
    "requant_bits: 18.0": "requant_bits must be an integer, not 18.0",
    "name: /tmp/evil": "the name of an arch must be .*not '/tmp/evil'",
    "name: ../up": "the name of an arch must be",
    "name: .hidden": "the name of an arch must be",
    "name: 7": "the name of an arch must be .*not 7",
    "name: two words": "the name of an arch must be",
    f"name: {'x' * 65}": "the name of an arch must be",
    "banks: 6\nbanks: 8": "has the setting 'banks' twice",
    "dram: {latency: 1, latency: 2}": "has the setting 'latency' twice",
    "1: 2": "no setting 1",
    "packing: !!bool z": "holds a value that YAML cannot read",
    "depth: 2001-99-99": "holds a value that YAML cannot read",
    "depth: " + "[" * 9000: "not YAML|holds a value that YAML cannot read",
    BOMB: r"uses an alias \(\*\), line",
    "#" * MOST_BYTES: "is longer than 32768 bytes",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:24])
def test_one_sentence_at_once(tmp_path, text):
    (tmp_path / "x.yaml").write_text(f"base: nano\n{text}\n")
    start = time.process_time()
    with pytest.raises(ConfigError, match=WRONG[text]) as error:
        load(str(tmp_path / "x.yaml"))
    assert time.process_time() - start < 2
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(("base", "message"), [
    ("[nano]", r"is based on \['nano'\]"), ("{nano: 1}", "is based on"), ("other", "is based on"),
])
def test_the_base_is_a_preset(tmp_path, base, message):
    (tmp_path / "x.yaml").write_text(f"base: {base}\n")
    with pytest.raises(ConfigError, match=message):
        load(str(tmp_path / "x.yaml"))


def test_files_that_are_none(tmp_path):
    (tmp_path / "d.yaml").mkdir()
    (tmp_path / "l.yaml").write_bytes(b"depth: \xff")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name, message in (("d", "no regular"), ("l", "not UTF-8"), ("zero", "no regular")):
        with pytest.raises(ConfigError, match=message):
            load(str(tmp_path / f"{name}.yaml"))


def test_the_stem_becomes_a_name(tmp_path):
    path = tmp_path / ".my core (2).yaml"
    path.write_text("base: nano\ndram: {latency: 7}\n")
    arch = load(str(path))
    assert arch.name == "my_core__2_"
    assert arch.dram == dataclasses.replace(preset("nano").dram, latency=7)


def test_names():
    assert check_name("zcu102-2.1_b+", "it") == "zcu102-2.1_b+"
    for name in ("", ".", "..", "a/b", "a\\b", "-x", "a\nb", "a b", "é", "a\0", None, "x\n"):
        with pytest.raises(ConfigError):
            check_name(name, "it")
    assert as_name("..") == "unnamed"
    with pytest.raises(ConfigError, match="the name of a part"):
        Part(name="[exec rm]")
    with pytest.raises(ConfigError):
        Dram(latency=1.5)  # pyright: ignore[reportArgumentType]


def test_values_are_shown_briefly():
    assert short(10**5000) == "an integer of 16610 bits"
    nest: list = []
    for _ in range(100):
        nest = [nest] * 10
    assert len(short(nest)) < 600
    assert len(short("x" * 10**6)) < 100


def test_escapes_are_visible():
    assert visible("plain Ümlaut\tx") == "plain Ümlaut\tx"
    assert visible("a\x1b[2Jb\r\u202ec\x9b") == "a\\x1b[2Jb\\r\\u202ec\\x9b"
