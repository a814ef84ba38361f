"""InferenceSession: the way to run a program or a model, in the manner of ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.arch.presets import preset
from vitrify.program import Program
from vitrify.program import preprocess as preprocessing

from . import backend as backends
from .backend import NodeArg
from .statistics import Statistics


class InferenceSession:
    """A model, ready to run on a backend.

    Parameters
    ----------
    model : path or Program
        ``.vfy`` program, or ``.onnx`` model (backend ``float`` only).
    backend : str
        ``golden`` (NumPy, bit-exact), ``rtl`` (simulated Verilog), ``float`` (ONNX Runtime on
        the original model), or a board: ``board:ulx3s?port=/dev/ttyUSB0``,
        ``board:pynq?bitfile=…``, ``board:uio`` (see :mod:`vitrify.runtime.backends.board`).
    arch : ArchConfig or preset name, optional
        The core to run on; default: the one the program was made for.  Another contract is
        refused.
    preprocess : str, optional
        How pixels become floats, for a model file or a program without its own specification.
    **options
        Settings of the backend (see its module).

    Examples
    --------
    >>> session = InferenceSession("vit.vfy", backend="golden")
    >>> logits, = session.run(None, {"input": images})
    """

    def __init__(
        self,
        model: str | Path | Program,
        backend: str = "golden",
        *,
        arch: ArchConfig | str | None = None,
        preprocess: str | None = None,
        **options: Any,
    ) -> None:
        if preprocess is not None:
            preprocessing.parse(preprocess)
        source = model if isinstance(model, Program) else open_model(model)
        if isinstance(source, Program):
            if arch is not None:
                chosen = preset(arch) if isinstance(arch, str) else arch
                source.require_arch(chosen)
                source = dataclasses.replace(source, arch=chosen)
            if preprocess is not None:
                source = dataclasses.replace(
                    source, input=dataclasses.replace(source.input, preprocess=preprocess)
                )
        self.program = source if isinstance(source, Program) else None
        self.backend = backend
        self._backend = backends.create(backend, source, preprocess, options)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, npt.ArrayLike]
    ) -> list[npt.NDArray[Any]]:
        """Run a batch.

        Parameters
        ----------
        output_names : names of the wanted outputs; ``None`` for all
        input_feed : the images by the input's name: float ``[N, C, H, W]`` or uint8
            ``[N, C, H, W]`` / ``[N, H, W, C]``; for a model with tasks also the integer that
            chooses one, for all images or ``[N]``

        Returns
        -------
        float arrays ``[N, …]``, in the order of ``output_names``

        Raises
        ------
        InputError
            For an unknown name or a wrong shape or type.
        """
        known = [out.name for out in self._backend.outputs]
        names = known if output_names is None else list(output_names)
        for name in names:
            if name not in known:
                raise InputError(f"the model has no output {name!r}; it has {', '.join(known)}")
        image, *others = (arg.name for arg in self._backend.inputs)
        for name in input_feed:
            if name not in (image, *others):
                listed = ", ".join(map(repr, (image, *others)))
                verb = "inputs are" if others else "input is"
                raise InputError(f"the model has no input {name!r}; its {verb} {listed}")
        if image not in input_feed:
            raise InputError(f"input {image!r} is missing")
        tasks = {name: input_feed[name] for name in others if name in input_feed}
        return self._backend.run(names, np.asarray(input_feed[image]), tasks)

    def get_inputs(self) -> list[NodeArg]:
        """The inputs: name, type, shape."""
        return list(self._backend.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The outputs: name, type, shape."""
        return list(self._backend.outputs)

    @property
    def statistics(self) -> Statistics | None:
        """Cost of the latest run, where the backend knows it."""
        return self._backend.statistics

    def close(self) -> None:
        """Give back what the backend holds."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_model(path: str | Path) -> Program | Path:
    """A program file as a :class:`Program`; the path of anything that may be an ONNX model."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {str(path)!r}; give a .vfy program or an .onnx model")
    return path if path.suffix.lower() == ".onnx" else Program.load(path)
