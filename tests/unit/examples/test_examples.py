"""Every example runs, and says what it should; as notebooks they run by `make notebooks`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from PIL import Image

from examples import detect, nearest, segment, video

EXAMPLES = Path(__file__).parents[3] / "examples"


def cells(name: str) -> str:
    """Run a notebook's cells; the simulation is left to tests of the simulator."""
    source = (EXAMPLES / f"{name}.py").read_text().replace("SIMULATE = True", "SIMULATE = False")
    assert source.startswith("# %% [markdown]\n# # ")
    exec(compile(source, name, "exec"), {"__name__": name})
    return source


def test_digits(capsys):
    assert "SIMULATE" in cells("digits")
    said = capsys.readouterr().out
    exact, integer = map(float, re.findall(r"([\d.]+)% of", said))
    assert integer > exact - 1
    assert (EXAMPLES.parent / "build/examples/digits_trace.png").stat().st_size > 5000


def test_own_core(capsys):
    cells("own_core")
    said = capsys.readouterr().out
    nano, wide = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) cycles", said))
    assert wide < nano
    found = [float(n) for n in re.findall(r": ([\d.]+) ms", said)]
    assert found
    assert found == sorted(found)


def test_classify_folder(capsys):
    cells("classify_folder")
    said = capsys.readouterr().out
    assert re.findall(r"part \d: (\w+)", said) == ["CorePart", "HostPart"]
    answers = re.findall(r"\d_(\w+)\.png +(\w+) ", said)
    assert len(answers) == 8
    assert all(truth == found for truth, found in answers)


def test_nearest(capsys):
    nearest.main(["--references", "200", "--queries", "40"])
    assert int(re.findall(r"name (\d+)%", capsys.readouterr().out)[0]) >= 90


def test_video(capsys):
    video.main([])
    said = capsys.readouterr().out
    answers, truth = (re.findall(rf"{word}: +(\d+)\n", said)[0] for word in ("frames", "truth"))
    assert sum(a == b for a, b in zip(answers, truth, strict=True)) >= 0.9 * video.FRAMES


def test_segment(capsys):
    segment.main(["--scenes", "4"])
    said = capsys.readouterr().out
    assert said.startswith("1 part for ulx3s; logits [4, 11, 48, 48]\n")
    assert min(float(n) for n in re.findall(r"([\d.]+)% of the pixels", said)) > 90
    assert Image.open(segment.OUT).size == (4 * 192, 3 * 192)


def test_detect(capsys):
    detect.main(["--scenes", "4"])
    said = capsys.readouterr().out
    assert said.startswith("1 part for nano; logits [4, 36, 11], boxes [4, 36, 4]\n")
    pairs = re.findall(r"found ([\d ]+?) +truth ([\d ]+)\n", said)
    assert len(pairs) == 4
    found, truth = (sum((Counter(each.split()) for each in side), Counter())
                    for side in zip(*pairs, strict=True))
    assert (found & truth).total() >= 0.7 * truth.total()
    assert Image.open(detect.OUT).size == (4 * 240, 240)
