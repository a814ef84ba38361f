"""From a view to a canonical tensor: rows of tokens, constant tokens, patches of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, array_of, shape_of

from .arrange import arrange, as_tokens, rank3, scaled, take_rows
from .fold import emit, fold, hints_of, is_cheap
from .layout import CHANNEL, ROW, covers, image_axis, kinds, layout_of, sizes, split_merged
from .mix import mix, mix_heads, over_heads
from .values import CONSTANT, Const, Unfit, View


@dataclass
class Rows:
    """A view whose last axis is channels of one token.

    ``rows`` holds the flat token number of each row, :data:`CONSTANT` for a constant token;
    ``columns`` the channel of each element, the same in every row.
    """

    rows: np.ndarray
    columns: np.ndarray


def rows_of(view: View) -> Rows:
    """Read a view as rows of tokens; raises :class:`Unfit` when it is none."""
    if view.index.ndim < 2:
        raise Unfit("its input is no batch of tokens or images")
    width = int(shape_of(view.base)[-1])
    constant = view.index == CONSTANT
    empty = constant.all(axis=-1)
    if not np.array_equal(constant.any(axis=-1), empty) or empty.all():
        raise Unfit("it mixes constants and activations within one token")
    columns = view.index[~empty][0] % width
    rows = np.where(empty, CONSTANT, view.index[..., 0] // width)
    if not np.array_equal(view.index[~empty], (rows[..., None] * width + columns)[~empty]):
        raise Unfit("it works across tokens or on a rearranged tensor, not on channels of a token")
    return Rows(rows, columns)


def per_channel(array: np.ndarray | None, live: np.ndarray | None = None) -> np.ndarray | None:
    """The one row that all (live) rows of ``array`` equal; raises :class:`Unfit` otherwise."""
    if array is None:
        return None
    rows = array.reshape(-1, array.shape[-1]) if live is None else array[live]
    if not np.array_equal(rows, np.broadcast_to(rows[0], rows.shape)):
        raise Unfit("it scales or shifts every token differently")
    return rows[0]


class Settler:
    """Turns views into tensors of the canonical graph.

    Parameters
    ----------
    image:
        The graph input.
    batch:
        The number of images that the views are written for.
    """

    def __init__(self, builder: Builder, image: ir.Value, batch: int) -> None:
        self.builder = builder
        self.image = image
        self.batch = batch
        #: Name of the original node that is being traced.
        self.source: str | None = None
        self._made: dict[tuple[Any, ...], ir.Value] = {}

    def emit(
        self, op: str, *inputs: ir.Value | np.ndarray, hints: tuple[str, ...] = (),
        **attributes: Any,
    ) -> ir.Value:  # fmt: skip
        """Append a canonical node."""
        return emit(self.builder, op, *inputs, source=self.source, hints=hints, **attributes)

    def once(self, op: str, *inputs: ir.Value | np.ndarray, **attributes: Any) -> ir.Value:
        """Append a canonical node, or return what the same movement of the same tensor made."""
        values = tuple(value for value in inputs if isinstance(value, ir.Value))
        key = (op, values, tuple((name, str(value)) for name, value in attributes.items()))
        if key not in self._made:
            self._made[key] = self.emit(op, *inputs, **attributes)
        return self._made[key]

    def settle(self, view: View, *, strict: bool = False) -> tuple[ir.Value, np.ndarray]:
        """The tensor [N, T, D] or [N, D] behind ``view``, and the row of it that each row is.

        Parameters
        ----------
        strict:
            Raise :class:`Unfit` where operations that only move elements would be needed.
        """
        if view.settled is None:
            try:
                view.settled = self._settle(view)
            except Unfit:
                if strict:
                    raise
                view.settled = arrange(self, view)
        return view.settled

    def holds_rows(self, view: View, *, alone: bool = False) -> bool:
        """Whether the last axis of ``view`` runs over channels, not over rows alone.

        Parameters
        ----------
        alone:
            Channels are in no other axis: the last one is no part of a row, such as a head.
        """
        if view.base is self.image:
            return True
        if CHANNEL in kinds(view)[:-1] and alone:
            return False
        if sizes(view.base)[1] == view.shape[-1] or kinds(view)[-1] != ROW:
            return True
        # several rows side by side
        return len(split_merged(view)[1][-1]) > 1

    def exact(self, view: View) -> ir.Value:
        """The tensor [N, T, D] that a view of this shape is, its rows in order."""
        value, rows = self.settle(view)
        return self.in_order(value, rows.reshape(self.batch, -1))

    def in_order(self, value: ir.Value, rows: np.ndarray) -> ir.Value:
        """The tensor whose rows are the given ones of ``value``, [batch, T] of the same image."""
        inner = rows - np.arange(self.batch)[:, None] * sizes(value)[0]
        outside = inner.min() < 0 or inner.max() >= sizes(value)[0]
        if outside or not (inner == inner[:1]).all():
            raise Unfit("it mixes the images of a batch")
        return take_rows(self, rank3(self, value), inner[0])

    def _settle(self, view: View) -> tuple[ir.Value, np.ndarray]:
        if view.base is self.image:
            return self.patches(view, np.eye(view.shape[-1]), ())
        found = rows_of(view)
        live = found.rows != CONSTANT
        mul = per_channel(view.mul, live)
        if not live.all():
            return self._tokens(view, found, mul)
        token = self._one_token(view, found)
        try:
            add = per_channel(view.add)
        except Unfit:
            return self._tokens(view, found, mul)
        value = fold(self.builder, view.base, found.columns, mul, add, view.hints)
        if token is None:
            return value, found.rows
        chosen = self.emit("SelectToken", value, index=token)
        return chosen, np.arange(self.batch).reshape(found.rows.shape)

    def settle_anywhere(self, view: View) -> View:
        """The same elements of a tensor that has their scale and shift in it.

        Unlike :meth:`settle` it takes a tensor whose channels were split or moved among the other
        axes, as long as every channel has one scale and one shift.
        """
        try:
            tensor, rows = self.settle(view, strict=True)
            return self.view_of_rows(tensor, rows)
        except Unfit:
            if view.base is self.image or (view.index == CONSTANT).any():
                return self._apart(view)
        width = sizes(view.base)[1]
        picks = not covers(view.index % width, width)
        if picks and (view.mul is not None or view.add is not None):
            # the channels of the view alone: what else reads them may ask for the same
            layout = layout_of(kinds(view), view.shape, image_axis(view, self.batch))
            try:
                settled = self.settle(layout.lined(view), strict=True)
                return self.view_of_rows(*settled).moved(layout.back)
            except Unfit:
                pass
        try:
            mul, add = self.channelwise(view)
        except Unfit:
            return self._apart(view)
        scale, shift = (None if part is None else part[None] for part in (mul, add))
        return View(scaled(self, view.base, scale, shift, view.hints), view.index)

    @staticmethod
    def channelwise(view: View) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Scale and shift of each channel of the tensor behind ``view``, wherever they are."""
        width = int(shape_of(view.base)[-1])
        channel = view.index % width
        parts: list[np.ndarray | None] = []
        for array, neutral in ((view.mul, 1.0), (view.add, 0.0)):
            if array is None:
                parts.append(None)
                continue
            each = np.full(width, neutral)
            each[channel] = array
            if not np.array_equal(each[channel], array):
                raise Unfit("it scales or shifts every token differently")
            parts.append(each)
        mul, add = parts
        return mul, add

    def _apart(self, view: View) -> View:
        """The same elements of a tensor of their own."""
        layout = layout_of(kinds(view), view.shape, image_axis(view, self.batch))
        return self.view_of_rows(*self.settle(layout.lined(view))).moved(layout.back)

    def _one_token(self, view: View, found: Rows) -> int | None:
        shape = shape_of(view.base)
        if len(shape) != 3 or found.rows.size != self.batch or shape[1] == 1:
            return None
        count = int(shape[1])
        first = int(found.rows.flat[0])
        each = np.arange(self.batch) * count + first
        return first if np.array_equal(found.rows.ravel(), each) else None

    def _tokens(
        self, view: View, found: Rows, mul: np.ndarray | None
    ) -> tuple[ir.Value, np.ndarray]:
        """Constant tokens before the others and a shift per token: the position."""
        shape = shape_of(view.base)
        if len(shape) != 3:
            raise Unfit("it adds constants to something that is no sequence of tokens")
        inner = int(shape[1])
        total = found.rows.size // self.batch
        lead = total - inner
        kept = np.arange(self.batch)[:, None] * inner + np.arange(inner)
        add = np.zeros(view.shape) if view.add is None else view.add
        number = np.arange(found.rows.size).reshape(self.batch, -1)
        # the batch is the first axis, or the second as in torch.nn.MultiheadAttention
        for tokens_first in (False, True):
            grid = (total, self.batch) if tokens_first else (self.batch, total)
            rows = found.rows.reshape(grid)
            shift = add.reshape(*grid, -1)
            if tokens_first:
                rows, shift = rows.T, shift.swapaxes(0, 1)
            fits = lead >= 0 and (rows[:, :lead] == CONSTANT).all()
            if fits and np.array_equal(rows[:, lead:], kept) and (shift == shift[0]).all():
                value = self._prepend(view, found.columns, mul, lead, shift[0])
                order = number.T if tokens_first else number
                return value, order.reshape(found.rows.shape)
        raise Unfit("it places constant tokens elsewhere than before all others")

    def _prepend(
        self, view: View, columns: np.ndarray, mul: np.ndarray | None, lead: int, shift: np.ndarray
    ) -> ir.Value:
        prefix, position = shift[:lead], shift.copy()
        position[:lead] = 0.0
        base = fold(self.builder, view.base, columns, mul)
        hints = (*hints_of(base), *view.hints)
        node = base.producer()
        if node is not None and node.op_type == "Tokens":
            inner, old_prefix, old_position = (value for value in node.inputs if value is not None)
            prefix = np.concatenate([prefix, array_of(old_prefix)])
            position[lead:] += array_of(old_position)
            base = inner
        return self.emit("Tokens", base, prefix, position, hints=hints)

    def patches(
        self, view: View, weight: np.ndarray, hints: tuple[str, ...]
    ) -> tuple[ir.Value, np.ndarray]:
        """Project a view of the image: its last axis must run over the pixels of one patch.

        Parameters
        ----------
        weight:
            [D, pixels of a patch], columns in the order of the view's last axis.
        """
        _, channels, height, width = (0, *(int(size) for size in shape_of(self.image)[1:]))
        pixels = view.shape[-1]
        if view.index.size % (self.batch * pixels):
            raise Unfit("it mixes the images of a batch")
        index = view.index.reshape(self.batch, -1, pixels)
        first = index[0, 0]
        ph, pw = (int(axis.max()) + 1 for axis in (first // width % height, first % width))
        where = np.arange(channels * height * width).reshape(channels, height, width)
        block = where[:, :ph, :pw].ravel()
        if first.min() < 0 or not np.array_equal(np.sort(first), block):
            raise Unfit(
                "it does not cut the image into whole patches",
                "export a model that takes [N, C, H, W] and embeds non-overlapping patches",
            )
        origins = where[0, : height - ph + 1 : ph, : width - pw + 1 : pw].ravel()
        images = np.arange(self.batch) * where.size
        expected = images[:, None, None] + origins[:, None] + first
        if height % ph or width % pw or not np.array_equal(index, expected):
            raise Unfit(
                f"its patches of {ph}x{pw} do not tile the {height}x{width} image row by row",
                "export a model whose patches tile its image",
            )
        mul, add = per_channel(view.mul), per_channel(view.add)
        bias = np.zeros(len(weight)) if add is None else weight @ add
        scaled = weight if mul is None else weight * mul
        columns = np.argsort(first)
        value = self.emit(
            "PatchEmbed", self.image, scaled[:, columns], bias, patch=[ph, pw], hints=hints
        )
        count = len(origins) * self.batch
        return value, np.arange(count).reshape(view.shape[:-1])

    def view_of_rows(self, value: ir.Value, rows: np.ndarray) -> View:
        """The view whose rows are the given rows of ``value``."""
        width = int(shape_of(value)[-1])
        return View(value, (rows[..., None] * width + np.arange(width)).astype(np.int32))

    def linear(self, view: View, weight: np.ndarray, hints: tuple[str, ...]) -> View:
        """``view @ weight.T``; the weight is [out, in]."""
        if view.base is self.image:
            try:
                return self.view_of_rows(*self.patches(view, weight, hints))
            except Unfit:
                view = as_tokens(self, view)
        if not self.holds_rows(view):
            return mix(self, view, -1, weight, hints)
        if over_heads(view):
            return mix_heads(self, view, weight, hints)
        bias = np.zeros(len(weight))
        try:
            changed = view.mul is not None or view.add is not None
            all_rows = view.index[..., 0].size == self.batch * sizes(view.base)[0]
            if changed and all_rows and not is_cheap(view.base):
                raise Unfit("it scales or shifts what others may read as it is")
            value, rows = self.settle(view, strict=True)
        except Unfit:
            # what the producer cannot take, this weight may: channels, scale and shift
            try:
                found = rows_of(view)
                mul, add = per_channel(view.mul), per_channel(view.add)
                absorbs = (found.rows != CONSTANT).all()
            except Unfit:
                absorbs = False
            if not absorbs:
                value, rows = self.settle(view)
                emitted = self.emit("Linear", value, weight, bias, hints=hints)
                return self.view_of_rows(emitted, rows)
            value, rows = view.base, found.rows
            bias = bias if add is None else weight @ add
            wide = np.zeros((len(weight), int(shape_of(value)[-1])))
            np.add.at(wide.T, found.columns, (weight if mul is None else weight * mul).T)
            weight = wide
        return self.view_of_rows(self.emit("Linear", value, weight, bias, hints=hints), rows)

    def layer_norm(self, view: View, gamma: Const, beta: Const | None, epsilon: float) -> View:
        """LayerNorm over the last axis of ``view``."""
        value, rows = self.settle(view)
        width = int(shape_of(value)[-1])
        shift = np.zeros(1) if beta is None else beta.array.ravel()
        result = self.emit(
            "LayerNorm",
            value,
            np.broadcast_to(gamma.array.ravel(), width),
            np.broadcast_to(shift, width),
            epsilon=epsilon,
            hints=(gamma.name, beta.name if beta else ""),
        )
        return self.view_of_rows(result, rows)
