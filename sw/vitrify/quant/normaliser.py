"""What a normalisation on read is to the quantiser."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from .tensors import Statistics


class Normaliser(ABC):
    """Rows of a stream to normalised rows, before the gain and offset of each channel.

    Equal ones compare equal and have equal hashes: readers of the same rows can share what the
    core gathers of them.
    """

    @abstractmethod
    def apply(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Normalise real rows ``[..., D]``."""

    @property
    @abstractmethod
    def finest_step(self) -> float:
        """The finest step of rows in which what is added to their variance can be expressed."""

    @abstractmethod
    def statistics(self, step: float, dim: int) -> Statistics:
        """What has to be gathered of integer rows with ``dim`` channels in this ``step``."""
