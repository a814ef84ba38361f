"""Which router it was: told by the weights that it gave to experts in every draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .values import Unfit

#: Largest deviation of a recognised weight, relative to the weights.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Routing:
    """How a router weighs experts.

    Parameters
    ----------
    k, normalize:
        As in the canonical operation ``Experts``.
    expert:
        The logit of each weight.
    factor:
        A constant in each weight.
    """

    k: int
    normalize: int
    expert: np.ndarray
    factor: np.ndarray


def weights_of(logits: np.ndarray, k: int, normalize: int) -> np.ndarray:
    """The weights of all experts, [rows, E]: softmax of the logits for the k largest, else zero."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")
    np.put_along_axis(shares, order[:, k:], 0.0, axis=1)
    return shares / shares.sum(axis=1, keepdims=True) if normalize else shares


def recognise(weights: np.ndarray, logits: np.ndarray) -> Routing:
    """Find the router behind weights.

    Parameters
    ----------
    weights:
        [rows, M], of M results.
    logits:
        [rows, E], of the same tokens.

    Raises
    ------
    Unfit
        It is none of those that the canonical graph has, or not every expert has one result.
    """
    count = logits.shape[1]
    total = (weights * weights).sum(axis=0)
    for k in range(1, count + 1):
        for normalize in (0, 1):
            wanted = weights_of(logits, k, normalize)
            power = (wanted * wanted).sum(axis=0)
            factor = wanted.T @ weights / np.maximum(power, 1e-30)[:, None]
            error = total - factor**2 * power[:, None]
            expert = error.argmin(axis=0)
            best = np.arange(weights.shape[1])
            if (error[expert, best] <= TOLERANCE**2 * total).all():
                if not np.array_equal(np.sort(expert), np.arange(count)):
                    raise Unfit(f"its {len(best)} experts do not share {count} logits one by one")
                return Routing(k, normalize, expert, factor[expert, best])
    raise Unfit(
        "it weighs experts by something else than the softmax of the router's logits",
        "use the softmax over all experts or over the chosen ones, and no capacity limit",
    )
