"""Values of settings: whole numbers within bounds, classes built of plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError
from .text import short


def whole(what: str, name: str, value: object) -> int:
    """``value``, of the setting ``name`` of ``what``, if it is an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{what}: {name} must be an integer, not {short(value)}")
    return value


def integer(what: str, name: str, value: object, low: int, high: int) -> None:
    """Refuse what is no integer from ``low`` to ``high``."""
    if not low <= whole(what, name, value) <= high:
        raise ConfigError(f"{what}: {name} must be {low} to {high}, not {short(value)}")


def build(kind: type, values: Mapping[Any, Any], what: str) -> Any:
    """An object of a dataclass; unknown or missing settings are a :class:`ConfigError`."""
    names = {f.name for f in dataclasses.fields(kind)}
    for key in values:
        if key not in names:
            raise ConfigError(
                f"{what} has no setting {short(key)}; the settings are {', '.join(sorted(names))}"
            )
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - values.keys())
    if missing:
        raise ConfigError(f"{what} lacks the setting {missing[0]!r}")
    return kind(**values)
