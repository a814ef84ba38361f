"""Channels scaled, shifted and chosen: part of the linear map in front."""

from vitrify.ops.operation import Operation

from .plan import plan_affine, plan_channels

CHANNELS = Operation(plans={"Affine": plan_affine, "Channels": plan_channels})
