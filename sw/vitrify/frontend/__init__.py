"""From an ONNX file to the canonical graph: :func:`load`, then :func:`canonicalise`."""

from .bodies import known_by_bodies
from .canonicalise import STAGES, canonicalise, flattened, loads, rounded
from .entrance import is_channels_last
from .inputs import ModelInputError, image_input, is_image, model_inputs, takes_image
from .load import ExternalDataError, ModelFileError, OpsetError, load
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
    "is_image",
    "known_by_bodies",
    "load",
    "loads",
    "model_inputs",
    "rounded",
    "takes_image",
]
