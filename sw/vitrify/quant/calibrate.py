"""Statistics of float tensors over the calibration images, gathered batch by batch.

Exact running extremes and moments of each channel, and a random sample of rows for everything
that needs a distribution; no tensor of all images is ever held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.errors import ModelError
from vitrify.ir import Evaluator, shape_of

from .normaliser import Normaliser
from .tensors import Rows
from .windows import Window

Float32 = npt.NDArray[np.float32]
#: Called with what is being done and the part of it that is done, 0 … 1.
Progress = Callable[[str, float], None]

#: Images of which rows are drawn together.
BATCH = 8
#: As many of them pass ONNX Runtime at once as what is watched takes no more bytes for.
_BYTES = 1 << 25
#: Rows kept of each tensor, spread evenly over the images.
SAMPLE_ROWS = 2048
#: A sample with fewer rows is filled up with rows as they may be expected from more images.
ENOUGH_ROWS = 512
#: Images differ more than so few of them show: the expected spread is wider by this over their
#: number.
_UNSEEN = 3.0
#: At least this many rows of each image, however many images there are.
MIN_ROWS = 2
SEED = 20240229


@dataclass(frozen=True)
class Request:
    """A tensor to watch.

    Parameters
    ----------
    value : name in the canonical graph, ``[N, T, D]`` or ``[N, D]``
    rows : only these rows
    norm : normalise the rows first
    beside : another tensor with as many rows; its channels follow
    window : of a map: all taps beside each other
    """

    value: str
    rows: Rows | None = None
    norm: Normaliser | None = None
    beside: str | None = None
    window: Window | None = None


@dataclass
class Stats:
    """What is known of a requested tensor, per channel, and sampled ``rows [S, D]`` of it."""

    low: Float32
    high: Float32
    total: npt.NDArray[np.float64]
    rows: Float32
    #: Rows seen, and those of them that are in ``rows`` by now.
    count: int = 0
    kept: int = 0

    @classmethod
    def none(cls, channels: int, samples: int) -> Stats:
        """Of no rows so far, with room for so many ``samples``."""
        low, high = (np.full(channels, start, np.float32) for start in (np.inf, -np.inf))
        return cls(low, high, np.zeros(channels), np.empty((samples, channels), np.float32))

    def add(self, x: Float32, keep: npt.NDArray[np.int64]) -> None:
        """See more rows ``[R, D]``, of which those numbered in ``keep`` are kept."""
        np.minimum(self.low, x.min(axis=0), out=self.low)
        np.maximum(self.high, x.max(axis=0), out=self.high)
        self.total += x.sum(axis=0, dtype=np.float64)
        self.count += len(x)
        self.rows[self.kept : self.kept + len(keep)] = x[keep]
        self.kept += len(keep)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of each channel over all rows of all images."""
        return self.total / self.count

    @property
    def peak(self) -> Float32:
        """Largest magnitude of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def rows_of(x: npt.NDArray[np.floating], rows: Rows | None) -> npt.NDArray[np.floating]:
    """``[N, T, D]`` restricted to ``rows``; ``[N, D]`` counts as one row."""
    if x.ndim == 2:
        x = x[:, None]
    return x if rows is None else rows.of(x)


def collect(
    model: ir.Model,
    images: Float32,
    requests: Iterable[Request],
    progress: Progress | None = None,
    *,
    tasks: Mapping[str, int] | None = None,
) -> dict[Request, Stats]:
    """Run ``model`` over ``images``, once for each task, and gather what ``requests`` ask for.

    Parameters
    ----------
    images : float32 ``[N, C, H, W]``
    tasks : number of tasks by the input that chooses
    """
    tasks = tasks or {}
    wanted = list(dict.fromkeys(requests))
    names = [name for request in wanted for name in (request.value, request.beside) if name]
    evaluator = Evaluator(model, list(dict.fromkeys(names)))
    runs = max(tasks.values(), default=1)
    rng = np.random.default_rng(SEED)
    result: dict[Request, Stats] = {}
    shown = runs * len(images)
    per_image = max(MIN_ROWS, -(-SAMPLE_ROWS // shown))
    size = _images(model, names)
    done = 0
    for number, start in product(range(runs), range(0, len(images), BATCH)):
        batch = images[start : start + BATCH]
        #: Places of the sampled rows among those of the batch.
        drawn: dict[Request, npt.NDArray[np.int64]] = {}
        for first in range(0, len(batch), size):
            some = batch[first : first + size]
            chosen = {name: np.full(len(some), number % count) for name, count in tasks.items()}
            tensors = evaluator.run(feeds(model, some, chosen))
            for request in wanted:
                x = _asked(request, tensors)
                each = len(x) // len(some)
                if request not in result:
                    result[request] = Stats.none(x.shape[1], min(per_image, each) * shown)
                if request not in drawn:
                    count = min(per_image, each) * len(batch)
                    drawn[request] = np.sort(rng.choice(each * len(batch), count, replace=False))
                here = drawn[request] - first * each
                result[request].add(x, here[(here >= 0) & (here < len(x))])
            # Not beside those of the next images.
            del tensors
            done += len(some)
            if progress is not None:
                progress("calibrating", done / shown)
    for request, stats in result.items():
        # Two tensors side by side depend on each other in ways that drawn rows would not.
        if stats.count < ENOUGH_ROWS and request.beside is None:
            _foresee(stats, len(images), rng)
    return result


def _asked(request: Request, tensors: Mapping[str, npt.NDArray[np.floating]]) -> Float32:
    """The rows ``[R, D]`` of some images that ``request`` is about.

    Raises
    ------
    ModelError
        If they are no numbers.
    """
    x = rows_of(tensors[request.value], request.rows)
    if not np.isfinite(x).all():
        raise ModelError(
            f"tensor {request.value!r} is NaN or infinite on calibration images: a function of "
            f"the model overflows, or the images are not normalised as it wants them"
        )
    if request.norm is not None:
        x = request.norm.apply(x)
    if request.beside is not None:
        x = np.concatenate([x, rows_of(tensors[request.beside], request.rows)], axis=-1)
    if request.window is not None:
        x = request.window.of(x)
    return x.reshape(-1, x.shape[-1]).astype(np.float32, copy=False)


def _images(model: ir.Model, names: Iterable[str]) -> int:
    """Images of a run that yields these tensors."""
    watched = set(names)
    each = sum(
        np.dtype(np.float32).itemsize * math.prod(int(size) for size in shape_of(value)[1:])
        for node in model.graph for value in node.outputs if value.name in watched
    )
    return min(BATCH, max(1, _BYTES // max(1, each)))


def feeds(
    model: ir.Model, images: Float32, tasks: Mapping[str, npt.NDArray[np.integer]]
) -> dict[str, np.ndarray]:
    """Inputs of a canonical model by their names.

    Parameters
    ----------
    images : float32 ``[N, C, H, W]``
    tasks : ``[N]`` each; a model that takes one number for all gets the first
    """
    result: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        name, shape = value.name or "", shape_of(value)
        if name in tasks:
            numbers = np.asarray(tasks[name], np.int64)
            shared = not shape or shape == (1,)
            result[name] = numbers[:1].reshape([int(size) for size in shape]) if shared else numbers
        else:
            result[name] = images
    return result


def _foresee(stats: Stats, images: int, rng: np.random.Generator) -> None:
    """Add rows that more images may bring, from a normal distribution like those that are there.

    What eight rows reach, every third row exceeds in some channel: ranges that fit them clip.  New
    rows are random combinations of the known ones, so that channels go together as they do there.
    """
    rows = stats.rows
    seen = rows.astype(np.float64)
    mean, count = seen.mean(axis=0), len(seen)
    weights = rng.normal(size=(ENOUGH_ROWS - count, count)) / np.sqrt(max(1, count - 1))
    spread = np.sqrt(1 + 1 / count) * (1 + _UNSEEN / images)
    drawn = (mean + spread * weights @ (seen - mean)).astype(np.float32)
    stats.rows = np.concatenate([rows, drawn])
    stats.low = np.minimum(stats.low, drawn.min(axis=0))
    stats.high = np.maximum(stats.high, drawn.max(axis=0))
