"""Programs that some tests need and pip cannot supply."""

from __future__ import annotations

import shutil

import pytest


def need(tool: str, package: str) -> str:
    """``tool``, or the test is skipped and names the package."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} (apt: {package}) is not installed")
    return tool
