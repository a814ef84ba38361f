"""A module of the RTL with a fault put into it."""

from __future__ import annotations

import types
from pathlib import Path


def mutated(module: types.ModuleType, *changes: tuple[str, str]) -> types.ModuleType:
    """A copy of ``module`` with each ``old``, which its source has once, made ``new``."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    for old, new in changes:
        assert source.count(old) == 1, f"{module.__name__} has {source.count(old)} times: {old}"
        source = source.replace(old, new)
    copy = types.ModuleType(module.__name__)
    copy.__file__, copy.__package__ = module.__file__, module.__package__
    exec(compile(source, module.__file__, "exec"), vars(copy))
    return copy
