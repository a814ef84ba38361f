"""LOADs of bands of the image, one band ahead; what is set aside only changes its name."""

from __future__ import annotations

from vitrify.arch.isa import Region
from vitrify.codegen.image import input_offset
from vitrify.codegen.lowering import Lowering

from .integer import QAside, QRead


def load(state: Lowering, op: QRead, step: int) -> None:
    """LOAD the rows, if they are not there."""
    del step
    if state.was_placed(op.out):
        return
    target, each = state.place_near(op.out), state.image_rows(op.image)
    size = each * target.stride * state.arch.depth
    for image in range(state.images):
        state.builder.load(
            target, Region.INPUT, input_offset(state) + image * size,
            row=image * len(op.rows), rows=len(op.rows),
            every=range(-op.rows.start, each - op.rows.start),
        )


def lower_read(state: Lowering, op: QRead, step: int) -> None:
    """What is not there by now is loaded."""
    load(state, op, step)


def lower_aside(state: Lowering, op: QAside, step: int) -> None:
    """No instruction."""
    del step
    state.set_aside(op.x, op.out)
    state.builder.rename(op.x, op.out)
