"""Hidden units behind an activation: ranges, table, and the split of large units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import tables
from .scheme import Format, Rows
from .tensors import Float, Int8


@dataclass(frozen=True)
class Hidden:
    """A linear layer with its activation, units split, ready to become integers.

    ``weight [..., units, in]`` and ``bias [..., units]`` give the table's input in ``step_in``;
    the table's output stands for ``scale * (q - zero_point) + offset``.  ``codes`` are the outputs
    of sampled rows; ``copies`` is that of :class:`~vitrify.quant.tensors.QTensor`.
    """

    weight: Float
    bias: Float
    step_in: float
    table: Int8
    scale: float
    zero_point: int
    offset: Float
    copies: tuple[int, ...]
    codes: Int8


def hidden(
    kind: str, weight: Float, bias: Float, rows: Rows, high: Rows, importance: Rows,
    symmetric: bool = False, before: Format | None = None, behind: Format | None = None,
) -> Hidden:
    """Choose the ranges of an activation's input and output.

    Parameters
    ----------
    weight, bias : ``[..., units, in]``, ``[..., units]``, from real inputs to the real ``rows``
    rows : ``[S, units]``, sampled inputs of the activation
    high : ``[units]``, largest inputs
    importance : ``[units]``, how much the error of a unit's output counts
    symmetric : the output has zero point 0, and no unit is split
    before, behind : formats of input and output that are given
    """
    if before is None and behind is None:
        chosen = tables.activation(kind, rows, high, importance, symmetric)
    else:
        chosen = tables.kept_activation(kind, rows, importance, before, behind, symmetric)
    units = weight.shape[-2]
    extra = np.repeat(np.arange(units), chosen.copies - 1)
    sources = np.concatenate([np.arange(units), extra])
    level = np.zeros(len(sources))
    level[units:] = chosen.level(np.concatenate([np.arange(1, n) for n in chosen.copies]))
    offset = np.zeros(len(sources))
    offset[units:] = -chosen.rest
    return Hidden(
        weight[..., sources, :], bias[..., sources] - level - chosen.centre, chosen.step_in,
        chosen.table, chosen.step_out, chosen.zero_point, offset, tuple(int(i) for i in extra),
        chosen.codes(rows[:, sources] - level),
    )
