"""Channels scaled, shifted and chosen: part of the linear map in front."""

from vitrify.ops.operation import Operation

from .decompose import decompose_affine
from .plan import plan_affine, plan_channels

CHANNELS = Operation(
    decompositions={"Affine": decompose_affine},
    plans={"Affine": plan_affine, "Channels": plan_channels},
)
