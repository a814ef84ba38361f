"""Task numbers: from what a user gives to the registers of the jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vitrify.arch import isa
from vitrify.arch.errors import InputError

from .spec import TaskSpec

Numbers = npt.NDArray[np.int64]


def as_tasks(
    specs: Sequence[TaskSpec], given: Mapping[str, npt.ArrayLike], images: int
) -> Numbers:
    """Check task numbers; int64 ``[images, len(specs)]``.

    Parameters
    ----------
    given : integers by the name of the input: one for all images, or ``[images]``

    Raises
    ------
    InputError
        If one is missing, no integer, of a wrong number, or no task of the model.
    """
    if not specs:
        return np.zeros((images, 0), np.int64)
    columns = []
    for spec in specs:
        if spec.name not in given:
            raise InputError(
                f"input {spec.name!r} is missing: a task from 0 to {spec.count - 1} for each image"
            )
        numbers = np.asarray(given[spec.name])
        if numbers.dtype.kind not in "iu":
            raise InputError(f"input {spec.name!r} must be integers, not {numbers.dtype}")
        if numbers.size not in (1, images) or numbers.ndim > 1:
            raise InputError(
                f"input {spec.name!r} has the shape {list(numbers.shape)}; {images} images take "
                f"one task, or [{images}]"
            )
        wrong = numbers[(numbers < 0) | (numbers >= spec.count)]
        if wrong.size:
            raise InputError(
                f"input {spec.name!r} is {int(wrong.flat[0])}; the model has the tasks 0 to "
                f"{spec.count - 1}"
            )
        columns.append(np.broadcast_to(numbers.reshape(-1, 1), (images, 1)).astype(np.int64))
    return np.concatenate(columns, axis=1)


def registers(tasks: Numbers, batch: int) -> list[int]:
    """The register TASK of every job of ``batch`` images, from the tasks ``[N, inputs]``.

    Byte ``i * inputs + j`` is the number that input ``j`` gives for the job's image ``i``; images
    that fill up the last job have task 0.
    """
    jobs = -(-len(tasks) // batch)
    if not tasks.shape[1]:
        return [0] * jobs
    words = np.zeros((jobs * batch, tasks.shape[1]), np.int64)
    words[: len(tasks)] = tasks
    shifts = isa.TASK_BITS * np.arange(batch * tasks.shape[1])
    return [int(word) for word in (words.reshape(jobs, -1) << shifts).sum(axis=1)]
