"""Programs: the compiled form of a network, its file, and the packing of inputs and outputs."""

from .pack import as_batch, from_words, pack_input, quantise, to_words, unpack_output
from .preprocess import Preprocess
from .program import Program, roofline
from .spec import InputSpec, LayerInfo, OutputSpec, TensorInfo

__all__ = [
    "InputSpec",
    "LayerInfo",
    "OutputSpec",
    "Preprocess",
    "Program",
    "TensorInfo",
    "as_batch",
    "from_words",
    "pack_input",
    "quantise",
    "roofline",
    "to_words",
    "unpack_output",
]
