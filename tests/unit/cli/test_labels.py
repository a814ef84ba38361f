"""Names of classes: from files, into the program, onto the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.calibration import digits_calibration
from vitrify.arch.errors import InputError, ProgramError
from vitrify.cli.main import main
from vitrify.program import header
from vitrify.runtime.labels import MOST_BYTES, labels_beside, read_labels

MODEL = Path(__file__).resolve().parents[3] / "models/digits_vit/model.onnx"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.txt", "\n".join(WORDS) + "\n"),
        ("list.json", json.dumps(WORDS)),
        ("numbers.json", json.dumps({str(i): word for i, word in enumerate(WORDS)})),
        ("config.json", json.dumps({"id2label": {str(i): w for i, w in enumerate(WORDS)}})),
        ("config.json", json.dumps({"architecture": "vit", "label_names": WORDS})),
    ],
)
def test_spellings(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_labels(tmp_path / name) == WORDS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", "\n\n", "there are no labels in"),
        ("broken.json", "[", "cannot read the labels in"),
        ("config.json", '{"hidden_size": 3}', "neither id2label nor label_names"),
        ("gap.json", '{"0": "a", "2": "b"}', "not 0, 1, 2 and so on"),
        ("kinds.json", '["a", 3]', "is no list of names"),
        ("long.txt", "x" * (MOST_BYTES + 1), "take 45005 bytes, and a program carries 45000"),
    ],
)
def test_files_that_name_nothing(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / name)


def test_nothing_beside_the_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json beside it; give --labels FILE"):
        labels_beside(tmp_path / "model.onnx")


def test_run_prints_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = (digits_calibration(8).transpose(0, 3, 1, 2) / 255 - 0.305) / 0.376
    np.save(tmp_path / "images.npy", pixels.astype(np.float32))
    program, images = tmp_path / "digits.vfy", str(tmp_path / "images.npy")
    given = ["compile", str(MODEL), "--arch", "nano", "--calib", images, "-o", str(program),
             "--no-verify", "--labels"]
    (tmp_path / "few.txt").write_text("a\nb\n")
    assert main([*given, str(tmp_path / "few.txt")]) == 2
    assert "2 names, and no output has as many classes ('logits' [10])" in capsys.readouterr().err
    assert not program.exists()
    (tmp_path / "words.txt").write_text("\n".join(f"\x1b[31m{word}" for word in WORDS))
    assert main([*given, str(tmp_path / "words.txt")]) == 0
    assert main(["run", str(program), "--input", images]) == 0
    said = capsys.readouterr().out
    assert any(word in said for word in WORDS)
    assert "\x1b" not in said


@pytest.mark.parametrize(
    "facts",
    [{"labels": [3]}, {"labels": "abc"}, {"quantisers": {"kept": 1}},
     {"quantisers": {"kept": 1, "left_out": 0, "changed": [{"tensor": "x"}]}}],
)
def test_metadata_of_others(facts: dict[str, object]) -> None:
    with pytest.raises(ProgramError, match=next(iter(facts))):
        header.metadata("metadata", facts)
