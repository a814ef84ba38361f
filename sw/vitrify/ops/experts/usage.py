"""Which experts the sampled rows go to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

#: Rows that an expert is calibrated with at least; if it got fewer, those of others join in.
_ROWS = 384


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


def expert_usage(scores: npt.NDArray[np.floating], k: int, rows: int) -> tuple[float, ...]:
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
