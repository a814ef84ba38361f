"""An architecture by preset name or from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import ArchConfig
from .errors import ConfigError
from .presets import PRESETS, preset
from .text import as_name, short

YAML_SUFFIXES = (".yaml", ".yml")
#: Bytes of the longest file; the longest preset takes less than one thousand.
MOST_BYTES = 1 << 15


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
    values, _ = read_values(text)
    try:
        return ArchConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"arch file {text!r}: {error}") from error


def read_values(text: str) -> tuple[dict[str, Any], ArchConfig | None]:
    """Settings in the file ``text``, those of its ``base`` included, and that preset.

    Raises
    ------
    ConfigError
        For a file that cannot be read, or a base that there is not; the settings are unchecked.
    """
    path = Path(text)
    data = _parse(_read(path), text)
    if not isinstance(data, dict):
        raise ConfigError(f"arch file {text!r} must hold settings such as `depth: 32`")
    values = {"name": as_name(path.stem), **data}
    base = values.pop("base", None)
    if base is not None:
        if not isinstance(base, str) or base not in PRESETS:
            raise ConfigError(
                f"arch file {text!r} is based on {short(base)}; the presets are "
                f"{', '.join(PRESETS)}"
            )
        original = PRESETS[base].to_dict()
        for key, value in values.items():
            both = isinstance(value, dict) and isinstance(original.get(key), dict)
            original[key] = {**original[key], **value} if both else value
        values = original
    return values, PRESETS[base] if base is not None else None


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"arch file {str(path)!r} is no regular file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigError(
                f"arch file {str(path)!r} is longer than {MOST_BYTES} bytes; it needs a line for "
                f"each setting"
            )
        return data.decode()
    except OSError as error:
        raise ConfigError(f"cannot read arch file {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"arch file {str(path)!r} is not YAML: it is not UTF-8") from error


def _parse(content: str, name: str) -> Any:
    """YAML without aliases (a few of them make gigabytes) and without duplicate keys."""
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            f"arch file {name!r} needs PyYAML: `pip install 'vitrify[cli]'`"
        ) from None

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ConfigError(
                    f"arch file {name!r} uses an alias (*), line "
                    f"{self.peek_event().start_mark.line + 1}; write the value out"
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for number, key in enumerate(keys):
                if key in keys[:number]:
                    raise ConfigError(
                        f"arch file {name!r} has the setting {short(key)} twice; leave one out"
                    )
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(content, Loader)  # noqa: S506  (a SafeLoader, made stricter)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(f"arch file {name!r} is not YAML{where}") from error
    # Values such as 2001-99-99, a number of 5,000 digits, or brackets nested a thousand deep.
    except (ValueError, LookupError, ArithmeticError, RecursionError, AttributeError,
            TypeError) as error:
        raise ConfigError(f"arch file {name!r} holds a value that YAML cannot read") from error
