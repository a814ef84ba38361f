"""Inputs beside the checkout that a machine may have or not."""

from __future__ import annotations

from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "cases"


def case(name: str) -> Path:
    """A file of ``../shared/cases``; without it the test is skipped."""
    path = _FOLDER / name
    if not path.is_file():
        # In a worktree the folder lies one level up.
        path = _FOLDER.parents[2] / "shared" / "cases" / name
    if not path.is_file():
        pytest.skip(f"needs ../shared/cases/{name}, which is not part of the repository")
    return path
