"""``python -m tests.stranger``: the way of someone who has the wheel and no checkout.

Builds the wheel, installs it with its extra `all` in a fresh environment (pip takes the packages
from its index), and runs what the tutorial shows in an empty folder, on the digits' model.  Every
command has to end well, say something, and show no traceback; the simulator is built from the
wheel's RTL, in a cache of its own.  Minutes; hosted CI runs it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from bench.cases import CASES, ROOT

#: Command lines in their order, with the files that each makes.
STEPS = (
    ("--help",),
    ("info", "model.onnx"),
    ("compile", "model.onnx", "--arch", "nano", "--calib", "images.npy", "-o", "digits.vfy"),
    ("info", "digits.vfy"),
    ("estimate", "digits.vfy"),
    ("report", "digits.vfy", "-o", "report.html"),
    ("trace", "digits.vfy", "-o", "trace.json"),
    ("explore", "model.onnx", "--part", "ulx3s", "--limit", "8", "-o", "mine.yaml",
     "--plot", "front.png"),
    ("emit", "--arch", "mine.yaml", "-o", "core"),
    ("run", "digits.vfy", "--input", "one.npy"),
    ("run", "digits.vfy", "--input", "one.npy", "--backend", "rtl", "--check"),
    ("trace", "digits.vfy", "-o", "both.json.gz", "--backend", "rtl"),
)
MADE = ("digits.vfy", "report.html", "trace.json", "mine.yaml", "front.png", "core/manifest.json",
        "both.json.gz")
_WRONG = re.compile(r"Traceback|internal error|Warning:")


def install(folder: Path) -> Path:
    """The command of a fresh environment that has the wheel and its extras."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT],
        check=True,
    )
    wheel, = folder.glob("vitrify-*.whl")
    venv.create(folder / "venv", with_pip=True)
    subprocess.run(
        [folder / "venv/bin/python", "-m", "pip", "install", "--quiet",
         "--disable-pip-version-check", f"{wheel}[all]"],
        check=True,
    )
    return folder / "venv/bin/vitrify"


def walk(command: Path, folder: Path) -> None:
    """Take every step in ``folder``."""
    case = next(case for case in CASES if case.name == "digits_vit")
    (folder / "model.onnx").write_bytes(case.model.read_bytes())
    images = case.calibration()
    np.save(folder / "images.npy", images)
    np.save(folder / "one.npy", images[:1])
    kept = {name: value for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for step in STEPS:
        print(f"$ vitrify {' '.join(step)}", flush=True)
        done = subprocess.run(
            [command, *step], cwd=folder, env=kept | {"XDG_CACHE_HOME": str(folder / "cache")},
            capture_output=True, text=True, check=False,
        )
        print(done.stdout + done.stderr, flush=True)
        if done.returncode or not done.stdout or _WRONG.search(done.stdout + done.stderr):
            raise SystemExit(f"that was exit code {done.returncode}")
    missing = [name for name in MADE if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"not made: {', '.join(missing)}")


def main() -> None:
    """Install and walk."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "work").mkdir()
        walk(install(folder), folder / "work")
    print("no traceback")


if __name__ == "__main__":
    main()
