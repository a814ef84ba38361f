"""Layers between an attention and experts, made part by part, so that the router starts early.

A router takes several cycles for a row, and the array has nothing to do before it is ready.  Where
an image is sent to it while the next one is attended to, only the last few rows are waited for.
One ROUTE is under way at a time, so that parts are to be over when the next is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vitrify.arch import memmap
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.portions import bus_is_ahead
from vitrify.ops.experts.integer import QExperts
from vitrify.ops.experts.lower import route
from vitrify.ops.linear.integer import QLinear
from vitrify.ops.linear.lower import in_parts

from .integer import QAttention

#: Rows of half an image from which on two ROUTEs are worth it if there is no other image.  The
#: router takes six to eight cycles for each, and two layers in two parts end twice.
_LEAST_ALONE = 48


@dataclass(frozen=True)
class RoutedBehind:
    """The projection and the gate behind an attention, and the experts that they lead to.

    ``ends``: behind the rows of each part: of one image, the last (or only) one in halves; the
    first part is as many images as leave room for the others in every queue.
    """

    state: Lowering
    attention: QAttention
    projection: QLinear
    gate: QLinear
    experts: QExperts
    ends: tuple[int, ...]

    #: Ops that are made along with the attention.
    count = 2

    @classmethod
    def find(cls, state: Lowering, op: QAttention, step: int) -> RoutedBehind | None:
        """What is behind op number ``step``, if that is all, and the router gains by it."""
        match state.graph.ops[step + 1 : step + 4]:
            case [QLinear() as projection, QLinear() as gate, QExperts() as experts]:
                pass
            case _:
                return None
        chain = (projection.x, gate.x, gate.out, experts.x)
        if chain != (op.out, projection.out, experts.logits, projection.out):
            return None
        plain = projection.add and not gate.add and not any(
            one.rows or one.into or one.times or one.window or (one.name, 0) in state.preloads
            for one in (projection, gate)
        )
        if not plain or op.gates or state.strategy.row_blocks > 1:
            return None
        # A projection in halves takes its weights twice.  An image alone, which has no other to be
        # made meanwhile, waits for weights as it is, unless there are few.
        if state.images == 1 and not bus_is_ahead(state):
            return None
        total = state.rows(experts.x)
        image = total // state.images
        half, room = image // 2, state.arch.index_entries - state.arch.max_rows
        # Any other list has as many rows as accumulators at most.
        starts = range(image, total, image) if state.images > 1 else [total - half]
        first = next((
            rows for rows in starts if memmap.queue_entries(
                rows, experts.choices, len(experts.experts), total - rows
            ) <= room
        ), None)
        # A tile takes as long to load as half of an image takes to pass.
        if half < state.arch.width or first is None:
            return None
        if state.images == 1 and half < _LEAST_ALONE:
            return None
        ends = (*range(first, total - half, image), total - half, total)
        return cls(state, op, projection, gate, experts, ends)

    def place_logits(self) -> list[str]:
        """Where the router, which goes last, finds banks that the attention leaves alone.

        Returns what has to be left alone for that.
        """
        op, name = self.attention, self.gate.out
        tensor = self.state.graph.tensors[name]
        self.state.place(tensor, beside=[op.q, op.k, op.v], last=True)
        return [name]

    def prepare(self) -> Callable[[int], None]:
        """Take all places; what emits as much as there is to do behind an image."""
        state, done = self.state, 0
        layers = [(layer, in_parts(state, layer)) for layer in (self.projection, self.gate)]

        def emit(image: int) -> None:
            nonlocal done
            rows = self.ends[-1] // state.images * (image + 1)
            for end in (end for end in self.ends if done < end <= rows):
                for layer, some in layers:
                    if not done:
                        state.preloads.fill(layer)
                    some(done, end)
                route(state, self.experts, end)
                done = end

        return emit
