"""Whole published networks: random weights, every tensor still compared.

``python bench/export.py build/networks`` makes them, elsewhere; without them they are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.cases import ROOT
from bench.export import NETWORKS as EXPORTED
from bench.export import input_shape
from vitrify.arch.config import ArchConfig
from vitrify.compiler import compile_model
from vitrify.program import Program

FOLDER = ROOT / "build" / "networks"
#: Images of noise that a network is calibrated with.
_CALIBRATION = 16


@dataclass(frozen=True)
class Network:
    """An exported network, with the interface of :class:`bench.cases.Case`."""

    name: str
    presets: tuple[str, ...] = ("kv260",)
    #: Images of a job.
    batch: int = 1

    @property
    def model(self) -> Path:
        """Where its export is expected."""
        return FOLDER / f"{self._exported}.onnx"

    @property
    def _exported(self) -> str:
        return self.name.removesuffix(f"_x{self.batch}")

    @property
    def available(self) -> bool:
        """Whether it is there."""
        return self.model.is_file()

    def compile(self, arch: ArchConfig) -> Program:
        """The program for ``arch``; two compilations are equal."""
        images = self._noise(_CALIBRATION)
        return compile_model(
            self.model, arch, images, batch=self.batch, verify=False, warn=lambda _: None
        )

    def picture(self) -> npt.NDArray[np.float32]:
        """Noise for a job, ``[batch, C, H, W]``."""
        return self._noise(self.batch)

    def _noise(self, count: int) -> npt.NDArray[np.float32]:
        shape = (count, *input_shape(self._exported))
        return np.random.default_rng(0).standard_normal(shape, np.float32)


NETWORKS = (*map(Network, EXPORTED), Network("swin_t_x2", batch=2))
