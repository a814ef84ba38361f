"""InferenceSession: the way to run a program or a model, in the manner of ONNX Runtime."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

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


@runtime_checkable
class SessionOptions(Protocol):
    """What tells the session options of ONNX Runtime from other objects."""

    graph_optimization_level: Any
    intra_op_num_threads: Any


@runtime_checkable
class RunOptions(Protocol):
    """What is read of the run options of ONNX Runtime."""

    terminate: bool


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
    providers : list of names, optional
        For code written for ONNX Runtime: a backend by its name, and providers of ONNX Runtime for
        what runs on the host (of a model, for all of it).
    sess_options : object, optional
        Options of ONNX Runtime, for code written for it, also in the place of ``backend``.  Nothing
        depends on them: a core has no such settings, and what the host answers must not change
        with an optimiser.
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
        backend: str | SessionOptions | None = "golden",
        *,
        arch: ArchConfig | str | None = None,
        preprocess: str | None = None,
        providers: Sequence[str] | None = None,
        sess_options: SessionOptions | None = None,
        **options: Any,
    ) -> None:
        if backend is None or isinstance(backend, SessionOptions):
            backend, sess_options = "golden", backend or sess_options
        if sess_options is not None and not isinstance(sess_options, SessionOptions):
            raise InputError(
                f"sess_options must be SessionOptions of ONNX Runtime, not {short(sess_options)}"
            )
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
                source = source.with_preprocess(preprocess)
        backend, others = _chosen(backend, providers, isinstance(source, Path))
        self.program = None if isinstance(source, Path) else source
        if self.program is not None and backend == "float" and isinstance(model, str | os.PathLike):
            options = {"near": Path(model).parent, **options}
        self.backend = backend
        self._closed = False
        self._queue: ThreadPoolExecutor | None = None
        #: The thread of the queue.
        self._worker: int | None = None
        self._others = others
        self._backend = backends.create(backend, source, preprocess, options, others)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, npt.ArrayLike],
        run_options: RunOptions | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Run a batch.

        Parameters
        ----------
        output_names : names of the wanted outputs; ``None`` for all
        input_feed : the images by the input's name: floats as the model takes them, or uint8
            ``[N, C, H, W]`` / ``[N, H, W, C]``; for a model with tasks also the integer that
            chooses one, for all images or ``[N]``; of a model with other inputs, all of them
        run_options : those of ONNX Runtime; a run that they say to terminate is refused

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
        if run_options is not None and not isinstance(run_options, RunOptions):
            raise InputError(
                f"run_options must be RunOptions of ONNX Runtime, not {short(run_options)}"
            )
        if run_options is not None and run_options.terminate:
            raise InputError("run_options say to terminate the run")
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

    def run_async(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, npt.ArrayLike],
        callback: Callable[[list[npt.NDArray[Any]], Any, str], None], user_data: Any = None,
        run_options: RunOptions | None = None,
    ) -> None:
        """As :meth:`run`, behind earlier calls of this method, while the caller goes on.

        Parameters
        ----------
        callback : called in another thread with the results, ``user_data`` and an empty text; or
            with no results and what went wrong.  What it raises itself goes to
            ``threading.excepthook``

        Raises
        ------
        InputError
            For a closed session; :meth:`close` waits for what has begun or waits, unless a
            callback calls it.  Or if ``callback`` cannot be called.
        """
        if self._closed:
            raise InputError("the session is closed; make a new one")
        if not callable(callback):
            raise InputError(f"callback must be a function, not {short(callback)}")
        if self._queue is None:
            self._queue = ThreadPoolExecutor(1, thread_name_prefix="vitrify-session")

        def run() -> None:
            self._worker = threading.get_ident()
            try:
                results, said = self.run(output_names, input_feed, run_options), ""
            # whatever it is, nobody else would hear of it
            except Exception as error:
                results, said = [], str(error) or type(error).__name__
            callback(results, user_data, said)

        self._queue.submit(run).add_done_callback(_tell)

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

    @property
    def channels_last(self) -> bool:
        """Whether the image is ``[N, H, W, C]``, not ``[N, C, H, W]``."""
        return self._backend.channels_last

    @property
    def is_of_images(self) -> bool:
        """Whether the model takes an image, and tasks if any, and no other tensors."""
        return self._backend.is_of_images

    def get_outputs(self) -> list[NodeArg]:
        """The outputs: name, type, shape."""
        return list(self._backend.outputs)

    def get_providers(self) -> list[str]:
        """The backend, and ONNX Runtime's providers for the host, if others were asked for."""
        return [self.backend, *self._others]

    def get_modelmeta(self) -> ModelMeta:
        """What is known of the model, as ONNX Runtime gives it."""
        program = self.program
        if program is None:
            return ModelMeta("", "", {})
        facts = {
            "arch": program.arch.name, "arch_hash": f"{program.arch.hash:08x}",
            "preprocess": program.preprocess or "",
            **{key: v if isinstance(v, str) else json.dumps(v)
               for key, v in program.metadata.items()},
        }  # fmt: skip
        return ModelMeta(program.model, "vitrify", facts)

    @property
    def statistics(self) -> Statistics | None:
        """Cost of the latest run, where the backend knows it."""
        return self._backend.statistics

    def close(self) -> None:
        """Give back what the backend holds; runs in other threads finish first on a board."""
        if self._queue is not None:
            # a callback cannot wait for itself: calls behind it find the session closed
            self._queue.shutdown(wait=threading.get_ident() != self._worker)
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


@dataclass(frozen=True)
class ModelMeta:
    """Facts of a model under the names that ONNX Runtime has for them; those of a float model stay
    in its file.
    """

    graph_name: str
    producer_name: str
    custom_metadata_map: dict[str, str]
    description: str = ""
    domain: str = ""
    version: int = 0


def _chosen(
    backend: str, providers: Sequence[str] | None, is_model: bool
) -> tuple[str, tuple[str, ...]]:
    """The backend, and ONNX Runtime's providers."""
    if providers is None:
        return backend, ()
    if isinstance(providers, str) or not all(isinstance(name, str) for name in providers):
        raise InputError(f"providers must be a list of names, not {short(providers)}")
    ours = [name for name in providers if name.partition(":")[0] in backends.BACKENDS]
    if len(ours) > 1:
        raise InputError(f"one backend runs a session, not {' and '.join(ours)}")
    others = tuple(name for name in providers if name not in ours)
    return (*ours, "float" if is_model and others else backend)[0], others


def _tell(done: Future[None]) -> None:
    """What a callback raised, as of a thread of its own."""
    if (error := done.exception()) is not None:
        threading.excepthook(threading.ExceptHookArgs(
            (type(error), error, error.__traceback__, threading.current_thread())
        ))  # fmt: skip


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
