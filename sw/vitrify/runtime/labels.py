"""Names of classes: from a file, or from what comes with a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrify.arch.errors import InputError
from vitrify.arch.text import short

#: Bytes of the longest file that is looked at.
_MOST_FILE = 1 << 20
#: Bytes that all names may have as JSON: a program carries them among its metadata.
MOST_BYTES = 45_000


def read_labels(path: Path) -> list[str]:
    """Names in the order of the classes.

    Parameters
    ----------
    path : text with a name a line, or JSON: a list, numbers and their names, ``id2label`` of a
        Hugging Face ``config.json`` or ``label_names`` of timm's

    Raises
    ------
    InputError
        If there are none, or they are too long for a program.
    """
    try:
        if path.stat().st_size > _MOST_FILE:
            raise InputError(f"{str(path)!r} is larger than {_MOST_FILE} bytes: no file of labels")
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the labels in {str(path)!r}: {error}") from error
    if path.suffix.lower() == ".json":
        try:
            names = _of_json(json.loads(content))
        except (ValueError, RecursionError) as error:
            raise InputError(f"cannot read the labels in {str(path)!r}: {error}") from error
    else:
        names = content.rstrip("\n").splitlines()
    if not any(name.strip() for name in names):
        raise InputError(f"there are no labels in {str(path)!r}; write one a line")
    size = len(json.dumps(names))
    if size > MOST_BYTES:
        raise InputError(
            f"the labels in {str(path)!r} take {size} bytes, and a program carries {MOST_BYTES}; "
            f"shorten them"
        )
    return names


def labels_beside(model: Path) -> list[str]:
    """Names in the ``config.json`` beside a model.

    Raises
    ------
    InputError
        If there is no such file, or no names are in it.
    """
    path = model.parent / "config.json"
    if not path.is_file():
        raise InputError(
            f"nothing names the classes of {str(model)!r}: there is no config.json beside it; give "
            f"--labels FILE, a name a line"
        )
    return read_labels(path)


def _of_json(data: Any) -> list[str]:
    """Names of parsed JSON."""
    if isinstance(data, Mapping):
        data = data.get("id2label") or data.get("label_names") or data
    if isinstance(data, Mapping):
        if not all(key.isdecimal() and len(key) < 7 for key in data):
            raise ValueError("neither id2label nor label_names is in it")
        numbers = sorted(int(key) for key in data)
        if numbers != list(range(len(numbers))):
            raise ValueError("its numbers are not 0, 1, 2 and so on, each once")
        data = [data[key] for key in sorted(data, key=int)]
    if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
        raise ValueError(f"{short(data)} is no list of names")
    return data
