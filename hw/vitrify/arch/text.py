"""Text from files in messages and paths: bounded, on one line, and safe to print."""

from __future__ import annotations

import re
import reprlib

from .errors import ConfigError

#: Longest name of a core or a part.
NAME_LENGTH = 64
_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.+-]{{0,{NAME_LENGTH - 1}}}")

#: Longest integer that is shown in full, and longest text.
_MOST_BITS = 128
_MOST_TEXT = 80


def check_name(name: object, what: str) -> str:
    """``name``, if folders, Verilog modules and scripts may be called so.

    Raises
    ------
    ConfigError
        For anything but 1 to 64 ASCII letters, digits and ``_ . + -``, or a leading dot, plus or
        minus.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} must be 1 to {NAME_LENGTH} letters, digits and _ . + - (the first a letter, "
            f"a digit or _), not {short(name)}"
        )
    return name


def as_name(text: str) -> str:
    """``text`` (the stem of a file) with everything replaced that :func:`check_name` refuses."""
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", text)[:NAME_LENGTH].lstrip(".+-")
    return name or "unnamed"


class _Short(reprlib.Repr):
    """``repr`` with bounds on everything, so that no value from a file can be too much."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = _MOST_TEXT

    def repr_int(self, x: int, level: int) -> str:
        """The digits, or how many bits there are: Python refuses to print thousands of digits."""
        bits = x.bit_length()
        return f"an integer of {bits} bits" if bits > _MOST_BITS else super().repr_int(x, level)


def short(value: object) -> str:
    """``repr(value)``, bounded in depth and length."""
    return _Short().repr(value)


def visible(text: str) -> str:
    """``text`` with control characters, terminal escapes and the like as backslash escapes.

    Line feeds and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in text
    )
