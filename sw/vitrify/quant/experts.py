"""Experts on their way to integers: where they stand in the plan, and each one's layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats

from .plan import Array, ExpertsOp, LinearOp, Operand, Plan

#: Rows that an expert is calibrated with at least; if it got fewer, those of others join in.
_ROWS = 384

#: Real value of a step of gate logits: they hold ``z * log2(e)``.
LOGIT_STEP = float(np.log(2.0)) * 2.0**-formats.GATE_LOGIT_FRAC


# Plan --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Mixture:
    """What experts make of ``x``, not added to a stream yet; names as in :class:`ExpertsOp`."""

    name: str
    x: Operand
    logits: str
    scores: str
    w1: Array
    b1: Array
    w2: Array
    b2: Array
    k: int
    normalize: bool
    kind: str


def mix(plan: Plan, stream: Operand, mixture: Mixture, out: str, name: str, value: str) -> Operand:
    """Add a mixture to a stream, whose next version lies in the tensor ``out``.

    Additions to the stream since the experts' input was made (a dense layer beside them) move
    behind the experts: those must read the stream as it was.
    """
    assert stream.version is not None
    read, before = mixture.x, stream.version
    late: list[LinearOp] = []
    if read.tensor == stream.tensor and read.version is not None:
        late = [
            op for op in plan.ops
            if isinstance(op, LinearOp) and op.role == "add" and op.out == stream.tensor
            and op.version > read.version
        ]
        before -= len(late)
    for op in late:
        plan.ops.remove(op)
    version = before + 1
    plan.ops.append(ExpertsOp(
        name, read, mixture.logits, mixture.scores, stream.tensor, out, "" if late else value,
        version, mixture.w1, mixture.b1, mixture.w2, mixture.b2, mixture.k, mixture.normalize,
        mixture.kind,
    ))
    for op in late:
        version += 1
        own = value if op is late[-1] else ""
        plan.ops.append(replace(op, out=out, version=version, value=own))
    plan.roots[out] = plan.roots.get(stream.tensor, stream.tensor)
    return Operand(out, value, version)


# Calibration -------------------------------------------------------------------------------
def own_rows(
    rows: npt.NDArray[np.floating], scores: npt.NDArray[np.floating], k: int
) -> Iterator[npt.NDArray[np.floating]]:
    """For each expert the sampled rows that the float gate gives it, filled up if they are few.

    Parameters
    ----------
    rows : ``[S, D]``
    scores : ``[S, E]``, gate logits of the same rows
    """
    for mine in _chosen(scores, k).T:
        own, others = rows[mine], rows[~mine]
        missing = min(max(0, _ROWS - len(own)), len(others))
        if missing:
            spread = np.linspace(0, len(others) - 1, missing).astype(np.int64)
            own = np.concatenate([own, others[spread]])
        yield own


def asked(scores: npt.NDArray[np.floating], k: int, rows: int) -> tuple[float, ...]:
    """For each expert the share of images of ``rows`` rows in which anybody asks for it.

    As if the rows of an image chose independently of each other, which rather overstates it.
    """
    return tuple(float(1 - (1 - share) ** rows) for share in _chosen(scores, k).mean(axis=0))


def _chosen(scores: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.bool_]:
    """Whether a row goes to an expert, ``[S, E]``."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, best, True, axis=1)
    return chosen
