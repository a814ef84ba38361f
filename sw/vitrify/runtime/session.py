"""InferenceSession: the way to run a program or a model, in the manner of ONNX Runtime."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.arch.presets import preset
from vitrify.arch.text import short
from vitrify.program import Application, Program
from vitrify.program import preprocess as preprocessing
from vitrify.program.container import load, parse

from . import backend as backends
from .backend import NodeArg
from .statistics import Statistics


class InferenceSession:
    """A model, ready to run on a backend.

    Threads may share a session; results are those of one thread.  Several sessions, and several
    processes, may use one board: they wait for each other.

    Parameters
    ----------
    model : path, bytes, Program or Application
        ``.vfy`` program or its bytes, or ``.onnx`` model (backend ``float`` only).  Of an
        application in parts the programs run on the backend, and the rest on the host.
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
        model: str | os.PathLike[str] | bytes | Program | Application,
        backend: str = "golden",
        *,
        arch: ArchConfig | str | None = None,
        preprocess: str | None = None,
        **options: Any,
    ) -> None:
        if preprocess is not None:
            preprocessing.parse(preprocess)
        given = isinstance(model, Program | Application)
        source = model if given else open_model(model)
        if not isinstance(source, Path):
            if arch is not None:
                chosen = preset(arch) if isinstance(arch, str) else arch
                source.require_arch(chosen)
                source = source.on(chosen)
            if preprocess is not None:
                source = dataclasses.replace(
                    source, input=dataclasses.replace(source.input, preprocess=preprocess)
                )
        self.program = None if isinstance(source, Path) else source
        if self.program is not None and backend == "float" and isinstance(model, str | os.PathLike):
            options = {"near": Path(model).parent, **options}
        self.backend = backend
        self._closed = False
        self._backend = backends.create(backend, source, preprocess, options)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, npt.ArrayLike],
        run_options: None = None,
    ) -> list[npt.NDArray[Any]]:
        """Run a batch.

        Parameters
        ----------
        output_names : names of the wanted outputs; ``None`` for all
        input_feed : the images by the input's name: float ``[N, C, H, W]`` or uint8
            ``[N, C, H, W]`` / ``[N, H, W, C]``; for a model with tasks also the integer that
            chooses one, for all images or ``[N]``
        run_options : there are none; for code written for ONNX Runtime

        Returns
        -------
        float arrays ``[N, …]``, in the order of ``output_names``

        Raises
        ------
        InputError
            For an unknown name, a wrong shape or type, or a closed session.
        """
        if self._closed:
            raise InputError("the session is closed; make a new one")
        if run_options is not None:
            raise InputError(f"run_options must be None, not {short(run_options)}")
        if not isinstance(input_feed, Mapping):
            raise InputError(
                f"the inputs must be a dictionary such as {{'image': array}}, not "
                f"{type(input_feed).__name__}"
            )
        names = self._output_names(output_names)
        image, *others = (arg.name for arg in self._backend.inputs)
        for name in input_feed:
            if name not in (image, *others):
                listed = ", ".join(map(repr, (image, *others)))
                verb = "inputs are" if others else "input is"
                raise InputError(f"the model has no input {short(name)}; its {verb} {listed}")
        if image not in input_feed:
            raise InputError(f"input {image!r} is missing")
        tasks = {name: input_feed[name] for name in others if name in input_feed}
        return self._backend.run(names, _array(image, input_feed[image]), tasks)

    def _output_names(self, wanted: Sequence[str] | None) -> list[str]:
        known = [out.name for out in self._backend.outputs]
        if wanted is None:
            return known
        if isinstance(wanted, str) or not isinstance(wanted, Iterable):
            raise InputError(f"the outputs must be a list of names or None, not {short(wanted)}")
        names = list(wanted)
        for name in names:
            if name not in known:
                raise InputError(
                    f"the model has no output {short(name)}; it has {', '.join(known)}"
                )
        return names

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
        """Give back what the backend holds; runs in other threads finish first on a board."""
        self._closed = True
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


def _array(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"input {name!r} is no array: {error}") from error


def open_model(source: str | os.PathLike[str] | bytes) -> Program | Application | Path:
    """A program or application, from a file or its bytes; the path of what may be an ONNX model."""
    if isinstance(source, bytes | bytearray | memoryview):
        return parse(bytes(source), "in memory")
    try:
        path = Path(source)
        missing = not path.is_file()
    except (TypeError, ValueError, OSError) as error:
        raise InputError(
            f"a model is given by its path, not by {short(source)}: {error}"
        ) from error
    if missing:
        raise InputError(f"no file {str(path)!r}; give a .vfy program or an .onnx model")
    return path if path.suffix.lower() == ".onnx" else load(path)
