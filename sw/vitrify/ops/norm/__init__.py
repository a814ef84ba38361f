"""Normalisations: of rows a transform of what reads the stream, others by other operations."""

from vitrify.ops.operation import Operation

from .decompose import decompose_group_norm, decompose_head_norm, decompose_rms_norm
from .plan import plan_layer_norm, plan_rms_norm

NORM = Operation(
    decompositions={
        "RMSNorm": decompose_rms_norm, "HeadNorm": decompose_head_norm,
        "GroupNorm": decompose_group_norm,
    },
    plans={"LayerNorm": plan_layer_norm, "RMSNorm": plan_rms_norm},
)
