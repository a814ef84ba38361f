"""Applications as a board runs them that has NumPy and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vitrify.program import Application

ROOT = Path(__file__).parents[2]
#: Prints the first result, or what is wrong.
BOARD = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ("vitrify", "numpy") and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is not installed on a board", name=top)

sys.meta_path.insert(0, Blocker())
import numpy as np
from vitrify.arch.errors import VitrifyError
from vitrify.runtime import InferenceSession
try:
    session = InferenceSession(sys.argv[1])
    print(session.run(None, dict(np.load(sys.argv[2])))[0].ravel().tolist())
except VitrifyError as error:
    print(error)
"""


def with_numpy_alone(
    application: Application, feed: Mapping[str, np.ndarray], folder: Path
) -> str:
    """What golden prints for ``feed`` there: the first result as a list, or a sentence."""
    application.save(folder / "a.vfy")
    np.savez(folder / "feed.npz", **feed)
    path = os.pathsep.join(str(ROOT / room) for room in ("hw", "sw", "sim"))
    done = subprocess.run(
        [sys.executable, "-c", BOARD, str(folder / "a.vfy"), str(folder / "feed.npz")],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
