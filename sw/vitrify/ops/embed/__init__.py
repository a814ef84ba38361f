"""Patch embedding, convolutions of the image, constant tokens and positions."""

from vitrify.ops.operation import Operation

from . import pixels
from .assemble import assemble
from .decompose import decompose_embedding
from .pixels import PixelsOp, plan_image_conv
from .plan import PatchOp, plan_patch_embed, plan_tokens

EMBED = Operation(
    decompositions=dict.fromkeys(("PatchEmbed", "ImageConv"), decompose_embedding),
    plans={
        "PatchEmbed": plan_patch_embed, "ImageConv": plan_image_conv, "Tokens": plan_tokens,
    },
    assembles={PatchOp: assemble, PixelsOp: pixels.assemble},
)
