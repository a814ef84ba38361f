"""Programs: the compiled form of a network, its file, and the packing of inputs and outputs."""

from .application import Application, CorePart, HostPart, as_image
from .pack import (
    UInt8,
    as_batch,
    as_inputs,
    channels_first,
    formed,
    from_words,
    integers,
    is_real,
    output_mask,
    pack_input,
    quantise,
    to_words,
    unpack_output,
)
from .preprocess import Preprocess
from .program import Program, roofline, shared_macs
from .spec import (
    ImageSpec,
    InputSpec,
    LayerInfo,
    OutputSpec,
    TaskSpec,
    TensorInfo,
    TensorSpec,
    output_size,
)
from .tasks import as_tasks, registers

__all__ = [
    "Application",
    "CorePart",
    "HostPart",
    "ImageSpec",
    "InputSpec",
    "LayerInfo",
    "OutputSpec",
    "Preprocess",
    "Program",
    "TaskSpec",
    "TensorInfo",
    "TensorSpec",
    "UInt8",
    "as_batch",
    "as_image",
    "as_inputs",
    "as_tasks",
    "channels_first",
    "formed",
    "from_words",
    "integers",
    "is_real",
    "output_mask",
    "output_size",
    "pack_input",
    "quantise",
    "registers",
    "roofline",
    "shared_macs",
    "to_words",
    "unpack_output",
]
