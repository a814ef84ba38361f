"""From an ONNX file to the canonical graph: :func:`load`, then :func:`canonicalise`."""

from .canonicalise import STAGES, canonicalise
from .load import (
    ExternalDataError,
    ModelFileError,
    ModelInputError,
    OpsetError,
    image_input,
    load,
)

__all__ = [
    "STAGES",
    "ExternalDataError",
    "ModelFileError",
    "ModelInputError",
    "OpsetError",
    "canonicalise",
    "image_input",
    "load",
]
