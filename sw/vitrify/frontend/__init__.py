"""From an ONNX file to the canonical graph: :func:`load`, then :func:`canonicalise`."""

from .canonicalise import STAGES, canonicalise, flattened
from .entrance import is_channels_last
from .load import (
    ExternalDataError,
    ModelFileError,
    ModelInputError,
    OpsetError,
    image_input,
    load,
)
from .saturation import input_range

__all__ = [
    "STAGES",
    "ExternalDataError",
    "ModelFileError",
    "ModelInputError",
    "OpsetError",
    "canonicalise",
    "flattened",
    "image_input",
    "input_range",
    "is_channels_last",
    "load",
]
