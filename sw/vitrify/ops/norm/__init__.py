"""Normalisations: a transform of what reads the stream."""

from vitrify.ops.operation import Operation

from .plan import plan_layer_norm, plan_rms_norm

NORM = Operation(plans={"LayerNorm": plan_layer_norm, "RMSNorm": plan_rms_norm})
