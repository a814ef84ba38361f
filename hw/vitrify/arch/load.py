"""An architecture by preset name or from a YAML file."""

from __future__ import annotations

from pathlib import Path

from .config import ArchConfig
from .errors import ConfigError
from .presets import PRESETS, preset

YAML_SUFFIXES = (".yaml", ".yml")


def load(text: str) -> ArchConfig:
    """The preset called ``text``, or the architecture in the YAML file ``text``.

    A file holds the settings of :class:`ArchConfig`.  With ``base: PRESET`` it changes that
    preset, and the other settings are optional.

    Raises
    ------
    ConfigError
        For an unknown preset, an unreadable file, or settings that are wrong.
    """
    path = Path(text)
    if path.suffix.lower() not in YAML_SUFFIXES:
        return preset(text)
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read arch file {text!r}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        raise ConfigError(f"arch file {text!r} is not YAML{where}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"arch file {text!r} must hold settings such as `depth: 32`")
    values = {"name": path.stem, **data}
    base = values.pop("base", None)
    if base is not None:
        if base not in PRESETS:
            raise ConfigError(
                f"arch file {text!r} is based on {base!r}; the presets are {', '.join(PRESETS)}"
            )
        original = PRESETS[base].to_dict()
        for key, value in values.items():
            both = isinstance(value, dict) and isinstance(original.get(key), dict)
            original[key] = {**original[key], **value} if both else value
        values = original
    try:
        return ArchConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"arch file {text!r}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"arch file {text!r} has a setting of the wrong type: {error}") from error
