"""A MATMUL with weights from the stream, every epilogue option, a set of weights for each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from vitrify.arch import isa
from vitrify.arch.access import Taps
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Output, Stationary, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.pack import Bytes, NoCodesError, are_nibbles, parameter_words, weight_words
from vitrify.codegen.placement import Placed
from vitrify.codegen.product import At, MatrixProduct, Picks, Queue, Stored, Tiles

from .bands import Band, Part
from .integer import QLinear
from .map_layout import Layout


class Emit(Protocol):
    """Emits the MATMUL of a block of rows."""

    def __call__(
        self, x_row: int, out_row: int, rows: int, row: int, *, image: int = 0,
        queue: Queue | None = None, picks: Picks | None = None, taps: Taps | None = None,
        done: int = 0,
    ) -> None:
        """``x_row`` and ``out_row`` are the first rows read and written, ``row`` that of the whole.

        The last two differ where a buffer holds one block at a time.  ``image`` chooses the task.
        With ``picks`` those are the rows that are read, counted from ``x_row``; with ``taps`` it is
        the first pixel of a map.  Rows before ``done`` were made before and count as work no more.
        """
        ...


def place_result(state: Lowering, op: QLinear) -> Placed:
    """The place of what ``op`` writes, with statistics entries if it gathers any."""
    old = op.base or op.out
    out = state.placed[op.out] if op.add and old == op.out else (
        state.place_near(op.out, apart=[op.x])
    )
    return out if op.statistics is None else state.with_statistics(out)


def prepare(
    state: Lowering, op: QLinear, x: Placed, out: Placed, stored: Stored | None = None,
    old: Placed | None = None, tiles: range | None = None,
) -> Emit:
    """Fields, parameters and stream of ``op``, ready for any block of rows.

    With ``stored`` the weights are in the token memory, and the stream has parameters only.
    ``old`` is where the values are that the result is added to, if not in its own place.
    With ``tiles`` no other c tiles are made.
    """
    if state.rehearses:
        return _nothing_to_emit
    if op.base is not None:
        old = state.placed[op.base]
    if stored is not None and stored.tiles is not None:
        tiles = stored.tiles
    values, transform = state.requant(op.requant), Transform.NONE
    if op.norm is not None:
        transform = Transform.NORM if op.norm.statistics else Transform.SCALE
        values |= {"norm_shift": op.norm.shift, "norm_mantissa": op.norm.mantissa}
        if op.norm.statistics:
            values["norm_shift"] = values["norm_mantissa"] = 0
    if op.times is not None:
        if not state.arch.products:
            raise CapacityError(
                f"layer {op.name!r} reads the product of two tensors, and arch "
                f"{state.arch.name!r} is without 'products'; choose an architecture that has them"
            )
        transform, x = Transform.PRODUCT, state.pair(op.x, op.times.tensor)
        values |= {"norm_shift": op.times.shift, "norm_mantissa": op.times.mantissa}
    columns = op.weight.shape[-2]
    output = Output.INT8 if not out.wide else Output.ADD16 if op.add else Output.INT16
    values |= {"transform": transform, "output": output}

    def per_column(value: np.ndarray | int, dtype: type) -> np.ndarray:
        full = np.broadcast_to(np.asarray(value), (columns,)).astype(dtype)
        return out.spread.scatter(full)

    fold = op.window.map[1] if op.window is not None and op.window.lines else 1
    physical, depth = out.spread.physical, state.arch.depth
    window = None if op.window is None or op.window.lines else op.window
    split: float = 0
    if op.statistics is not None:
        # They are those of whole rows that one MATMUL writes.  Behind several, another one gathers
        # them, which needs an int8 tensor with as many words a row.
        again = window is not None and x.spread.words >= out.spread.words
        split = -(-physical // state.arch.width) if again else np.inf
    if window is not None:
        layout = Layout(state.arch, window, x.spread, out.spread, split=split)
    else:
        layout = Band(
            state.arch, op.weight, x.spread, out.spread, fold,
            narrow=stored is None and tiles is None, split=split, only=tiles,
        )

    #: Whole rows are written by one MATMUL.
    whole = len(layout.parts) == 1 and tiles is None
    #: Its last columns are.
    complete = layout.parts[-1].columns(state.arch.width, physical).stop == physical
    # C tiles in one pass stream the same words, and wider ones no words of their own.
    apart = state.arch.sees_nibbles and any(part.step for part in layout.parts)
    nibbles = not apart and are_nibbles(state.arch, op.weight, stored=stored is not None)

    def stream(
        part: Part, weight: np.ndarray, bias: np.ndarray | int, multiplier: np.ndarray | int
    ) -> Bytes:
        own = part.columns(state.arch.width, physical)
        parameters = per_column(bias, np.int32)[own], per_column(multiplier, np.uint16)[own]
        if stored is not None:
            return parameter_words(state.arch, *parameters, nibbles=nibbles).reshape(-1)
        return weight_words(
            state.arch, layout.matrix(weight, part), *parameters, nibbles=nibbles
        )

    bias, multiplier = op.requant.bias, op.requant.multiplier
    sets = [(op.weight, bias, multiplier)]
    if op.task is not None:
        sets = list(zip(op.weight, np.asarray(bias), np.asarray(multiplier), strict=True))
    try:
        streams = [[stream(part, *own) for own in sets] for part in layout.parts]
    except NoCodesError:
        nibbles = False
        streams = [[stream(part, *own) for own in sets] for part in layout.parts]
    gain = None if op.norm is None else x.spread.scatter(op.norm.gain)
    macs = state.graph.macs[op.name]
    total = op.rows.count * state.images if op.rows else state.rows(op.x)
    if op.window is not None:
        total = op.window.count * state.images

    each, band = out.rows // state.images, op.band
    if band is not None:
        total = band.total

    def worth(first: int, end: int, done: int) -> int:
        """Multiply-accumulates of some rows; those of all rows add up to ``macs``."""
        if band is not None:
            first, end, done = (max(0, row - band.first) for row in (first, end, done))
        elif op.into is not None:
            # Of every image as many are made; others are in between.
            skipped = first // each * (each - op.into.count) + (op.into.start or 0)
            first, end = first - skipped, end - skipped
        return macs * end // total - macs * max(first, min(done, end)) // total

    def emit(
        x_row: int, out_row: int, rows: int, row: int, *, image: int = 0,
        queue: Queue | None = None, picks: Picks | None = None, taps: Taps | None = None,
        done: int = 0,
    ) -> None:
        if band is not None:
            row, done = row + band.start, max(done, band.done)
        gathered = state.gather(op.statistics, out, out_row)
        block = {**values, **gathered} if whole else values
        if transform == Transform.NORM:
            block = {**block, "stat_src": x.stat + x_row}
        if len(sets) > 1:
            block = {**block, "task_source": task_source(state, op, image)}
        every = worth(row, row + rows, done) if queue is None else queue.macs
        for part, weights in zip(layout.parts, streams, strict=True):
            own = part.columns(state.arch.width, physical)
            state.builder.matmul(MatrixProduct(
                name=op.name, op="linear",
                macs=every * own.stop // physical - every * own.start // physical,
                rows=rows, depth=layout.depth(part), columns=own.stop - own.start,
                x=At(x, x_row, part.word * depth), out=At(out, out_row, own.start), row=row,
                weights=weights, nibbles=nibbles,
                gain=None if gain is None else gain[part.word * depth :],
                table=op.table, queue=queue, picks=picks, stored=stored, fields=block, taps=taps,
                fold=fold, k_step=part.step, c_group=part.group,
                adds=None if old is None else At(old, out_row, own.start),
            ))
        if gathered and complete and not whole:
            state.builder.matmul(_nothing(op.name, At(x, x_row), At(out, out_row), rows, gathered))

    return emit


def _nothing_to_emit(*_: object, **__: object) -> None:
    """An :class:`Emit` for a rehearsal."""


def _nothing(
    name: str, x: At, out: At, rows: int, gathered: Mapping[str, int]
) -> MatrixProduct:
    """Adds zeros to rows that are complete, to gather their statistics; ``x`` is an int8 tensor."""
    return MatrixProduct(
        name=name, op="linear", macs=0, rows=rows, depth=1, columns=out.tensor.spread.physical,
        x=x, out=out, row=out.row, tiles=Tiles(Stationary.COLUMNS, x),
        fields={"transform": Transform.NONE, "output": Output.ADD16, "multiplier": 0, **gathered},
    )


def task_source(state: Lowering, op: QLinear, image: int) -> int:
    """Which of the job's task numbers chooses the weights of ``op`` for an image."""
    names = list(state.graph.tasks)
    if len(names) * state.job_images > isa.TASKS:
        raise CapacityError(
            f"{state.job_images} images a job with {len(names)} task inputs each are more than the "
            f"{isa.TASKS} task numbers of a job: use a smaller --batch"
        )
    assert op.task is not None
    return (state.image + image) * len(names) + names.index(op.task)
