"""What is known about a model's preprocessing: its own metadata, and the files that come with it.

Looked at, in this order: the ONNX metadata ``preprocess`` (a specification), ``pretrained_cfg``
(JSON, as timm has it) and ``preprocessor_config`` (JSON, as Hugging Face has it); then, beside the
model, Hugging Face's ``preprocessor_config.json`` and timm's ``config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrify.arch.errors import InputError
from vitrify.program import preprocess

#: Bytes of the longest file that is looked at.
_MOST_BYTES = 1 << 20
#: Pillow's numbers of its filters, which Hugging Face stores.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Known:
    """A specification, and where it is from."""

    spec: str
    source: str


def find(model: Path) -> Known | None:
    """What is known about the preprocessing of the ONNX file ``model``; ``None``: nothing.

    Raises
    ------
    InputError
        If what is there cannot be read, or asks for what we do not do.
    """
    for source, kind, content in _sources(model):
        try:
            data = content if kind == "spec" else json.loads(content)
            spec = {"spec": str, "timm": of_timm, "transformers": of_transformers}[kind](data)
            if spec is None:
                continue
            preprocess.parse(spec)
        except (InputError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError,
                RecursionError) as error:
            raise InputError(f"cannot read the preprocessing in {source}: {error}") from error
        return Known(spec, source)
    return None


def _sources(model: Path) -> Iterator[tuple[str, str, str]]:
    """Where something may be said: its name, its kind, and its text."""
    own = _metadata(model)
    for key, kind in (
        ("preprocess", "spec"), ("pretrained_cfg", "timm"), ("preprocessor_config", "transformers")
    ):
        if key in own:
            yield f"the metadata {key!r} of {model.name!r}", kind, own[key]
    for name, kind in (("preprocessor_config.json", "transformers"), ("config.json", "timm")):
        path = model.parent / name
        try:
            if path.is_file() and path.stat().st_size <= _MOST_BYTES:
                yield repr(str(path)), kind, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {str(path)!r}: {error}") from error


def _metadata(model: Path) -> dict[str, str]:
    """Key and value of ``metadata_props``; none of a file that is no model (others say so)."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        loaded = onnx.load(model, load_external_data=False)
    except (OSError, DecodeError, ValueError):
        return {}
    return {entry.key: entry.value for entry in loaded.metadata_props}


def of_timm(config: Mapping[str, Any]) -> str | None:
    """The specification in timm's ``config.json``, or in its ``pretrained_cfg``."""
    config = config.get("pretrained_cfg", config)
    if "mean" not in config:
        return None  # some other library's config.json
    mode = config.get("crop_mode") or "center"
    if mode not in preprocess.CROP_MODES:
        raise ValueError(f"crop_mode {mode!r} is not one of {', '.join(preprocess.CROP_MODES)}")
    filter_ = config.get("interpolation") or "bilinear"
    return _spec(
        config["mean"], config["std"], config.get("crop_pct") or 0.875,
        "bilinear" if filter_ == "random" else filter_, mode,
    )


def of_transformers(config: Mapping[str, Any]) -> str | None:
    """The specification in Hugging Face's ``preprocessor_config.json``."""
    if "image_mean" not in config and "do_normalize" not in config:
        return None
    # x = (pixel * factor - mean) / std, and ours is (pixel / 255 - mean) / std.
    unit = 255 * (config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1)
    plain = not config.get("do_normalize", True)
    mean, std = ([0.0], [1.0]) if plain else (config["image_mean"], config["image_std"])
    crop_pct, mode = _crop(config)
    return _spec(
        [value / unit for value in mean], [value / unit for value in std], crop_pct,
        _FILTERS[config.get("resample", 2)], mode,
    )


def _crop(config: Mapping[str, Any]) -> tuple[float, str]:
    """How much of a picture is seen, and whether its ratio is kept."""
    if not config.get("do_resize", True):
        raise ValueError("do_resize is false: pictures must have the model's size")
    size = config.get("size", 224)
    crop = config.get("crop_size", size)
    cropped = config.get("do_center_crop", False)
    if isinstance(size, Mapping) and "shortest_edge" in size:
        short, mode = size["shortest_edge"], "center"
        if "crop_pct" in config:
            return config["crop_pct"], mode
    elif isinstance(size, Mapping):
        short, mode = size["height"], "squash"
    else:
        short, mode = size, "center" if cropped else "squash"
    if not cropped:
        return 1.0, mode
    inner = crop.get("height", crop.get("shortest_edge")) if isinstance(crop, Mapping) else crop
    return inner / short, mode


def _spec(mean: Any, std: Any, crop_pct: float, interpolation: str, mode: str) -> str:
    def listed(values: Any) -> str:
        numbers = [float(f"{float(value):.9g}") for value in values]
        return ":".join(map(repr, numbers if len(set(numbers)) > 1 else numbers[:1]))

    parts = [
        f"crop_pct={float(f'{float(crop_pct):.9g}')!r}", f"mean={listed(mean)}",
        f"std={listed(std)}", f"interpolation={interpolation}",
    ]
    return ",".join(parts + ([f"crop_mode={mode}"] if mode != "center" else []))
