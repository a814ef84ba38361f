"""Patch embedding, constant tokens and positions."""

from vitrify.ops.operation import Operation

from .assemble import assemble
from .plan import PatchOp, plan_patch_embed, plan_tokens

EMBED = Operation(
    plans={"PatchEmbed": plan_patch_embed, "Tokens": plan_tokens},
    assembles={PatchOp: assemble},
)
