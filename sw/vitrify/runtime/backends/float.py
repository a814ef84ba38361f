"""Backend ``float``: ONNX Runtime on the original model, the reference for accuracy.

Models with quantised operators are executed as written (see :mod:`vitrify.ir.run`).
A program knows the name and the digest of the model it was compiled from.  Option ``onnx`` says
where that is; otherwise it is looked for beside the program (option ``near``, a folder) and in the
working directory.  Option ``progress`` is as in the others; ``providers`` are ONNX Runtime's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import BackendError, InputError, ModelError
from vitrify.program import Application, Program, TaskSpec, as_batch, as_tasks
from vitrify.program.spec import ImageSpec
from vitrify.program.tasks import Numbers
from vitrify.runtime.backend import (
    Backend,
    NodeArg,
    Progress,
    Tasks,
    check_options,
    no_progress,
)
from vitrify.runtime.host import CPU, first_line

#: Images that ONNX Runtime gets at once: enough to fill its threads, little memory.
_CHUNK = 16
#: More tasks than any model has, where nothing says how many there are.
_MANY = 1 << 31


#: Types of inputs other than float32, by ONNX Runtime's names.
_KINDS: dict[str, type] = {
    "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(uint8)": np.uint8,
}  # fmt: skip


class FloatBackend(Backend):
    """ONNX Runtime, with its CPU provider unless others are asked for."""

    name = "float"

    def __init__(
        self, path: Path, preprocess: str | None = None, *, tasks: Sequence[TaskSpec] = (),
        progress: Progress | None = None, providers: Sequence[str] = CPU,
    ) -> None:
        try:
            import onnx
            import onnxruntime as ort

            from vitrify.ir import operators, session_options
            from vitrify.ir.layout import is_channels_last_in
        except ImportError:
            raise BackendError(
                "backend 'float' needs ONNX Runtime: install it with `pip install "
                "'vitrify[compiler]'`"
            ) from None
        try:
            proto = onnx.load(path, load_external_data=False)
            settings = session_options(operators(proto))
            self._session = ort.InferenceSession(path, settings, list(providers))
        # ONNX Runtime's exceptions share no base of their own.
        except Exception as error:
            raise ModelError(
                f"{str(path)!r} is no ONNX model that ONNX Runtime can load: {first_line(error)}"
            ) from error
        self._progress = progress or no_progress
        inputs = sorted(self._session.get_inputs(), key=lambda arg: len(arg.shape) != 4)
        if not inputs or len(inputs[0].shape) != 4 or not all(map(_is_task, inputs[1:])):
            shapes = ", ".join(f"{i.name} {i.shape}" for i in inputs) or "none"
            raise ModelError(
                f"model {path.name!r} must have one input of the shape [N, C, H, W], and tasks as "
                f"integers, if any; its inputs are: {shapes}"
            )
        self.inputs = [NodeArg(a.name, a.type, list(a.shape)) for a in inputs]
        self.outputs = [NodeArg(a.name, a.type, list(a.shape)) for a in self._session.get_outputs()]
        self._kind = _KINDS.get(inputs[0].type, np.float32)
        self.channels_last = is_channels_last_in(proto, inputs[0].name)
        # a model that takes pixels gets them as they are
        self._preprocess = preprocess or ("none" if self._kind is np.uint8 else None)
        self._tasks = tasks

    def spec(self, feed: npt.NDArray[Any]) -> ImageSpec:
        """What the model takes; sizes that it leaves open are those of ``feed``."""
        arg = self.inputs[0]
        given = feed.shape[1:] if feed.ndim == 4 else (1, 1, 1)
        a, b, c = (
            size if isinstance(size, int) else int(actual)
            for size, actual in zip(arg.shape[1:], given, strict=True)
        )
        shape = (c, a, b) if self.channels_last else (a, b, c)
        return ImageSpec(name=arg.name, shape=shape, preprocess=self._preprocess,
                         channels_last=self.channels_last)

    def run(
        self, names: Sequence[str], feed: npt.NDArray[Any], tasks: Tasks
    ) -> list[npt.NDArray[Any]]:
        """Run the batch in chunks (one by one when the model's batch is fixed to 1)."""
        batch = as_batch(self.spec(feed), feed)
        arg = self.inputs[0]
        fixed = arg.shape[0]
        chunk = fixed if isinstance(fixed, int) and fixed > 0 else _CHUNK
        if isinstance(fixed, int) and fixed > 0 and len(batch) % fixed:
            raise InputError(
                f"the model takes batches of {fixed}, and {len(batch)} images were given"
            )
        specs = self._tasks or [TaskSpec(name=i.name, count=_MANY) for i in self.inputs[1:]]
        numbers = as_tasks(specs, tasks, len(batch))
        start, parts, order = time.perf_counter(), [], []
        for piece in self._pieces(numbers, chunk):
            given = {
                task.name: numbers[piece[:1] if _shared(task) else piece, i].reshape(
                    () if not task.shape else -1
                )
                for i, task in enumerate(self.inputs[1:])
            }
            try:
                parts.append(self._session.run(
                    list(names), {arg.name: self._given(batch[piece]), **given}
                ))
            except Exception as error:
                raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error
            order.append(piece)
            self._progress(sum(map(len, order)), len(batch))
        self.seconds = time.perf_counter() - start
        back = np.argsort(np.concatenate(order))
        return [np.concatenate(results)[back] for results in zip(*parts, strict=True)]

    def _given(self, batch: npt.NDArray[np.float32]) -> Any:
        """Images ``[N, C, H, W]`` in the layout and the type that the model takes."""
        if self.channels_last:
            batch = batch.transpose(0, 2, 3, 1)
        if self.inputs[0].type != "tensor(bfloat16)":
            return batch.astype(self._kind)
        import onnx
        import onnxruntime as ort

        kind = onnx.TensorProto.BFLOAT16
        bits = batch.astype(onnx.helper.tensor_dtype_to_np_dtype(kind), order="C").view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)

    def _pieces(self, numbers: Numbers, chunk: int) -> list[npt.NDArray[np.int64]]:
        """Images that run together: a chunk, of one task where the model takes a single number."""
        groups = [np.arange(len(numbers))]
        if any(map(_shared, self.inputs[1:])):
            _, which = np.unique(numbers, axis=0, return_inverse=True)
            groups = [np.flatnonzero(which == i) for i in range(which.max() + 1)]
        return [group[at : at + chunk] for group in groups for at in range(0, len(group), chunk)]


def _is_task(arg: Any) -> bool:
    return "int" in arg.type and len(arg.shape) <= 1


def _shared(task: NodeArg) -> bool:
    """Whether a model takes one number for all images."""
    return task.shape in ([], [1])


def source_of(program: Program | Application, places: Sequence[Path] = ()) -> Path:
    """The model file that ``program`` was compiled from, in one of the folders ``places``.

    Raises
    ------
    InputError
        If it is not there, or has changed.
    """
    source = program.metadata.get("source", {})
    name = source.get("name", "")
    if not name or Path(name).name != name:
        raise InputError(
            f"backend 'float' runs the original model, and program {program.model!r} does not say "
            f"which that is; give it with --float-model (option onnx)"
        )
    found = [place / name for place in places if (place / name).is_file()]
    for path in found:
        if hashlib.sha256(path.read_bytes()).hexdigest() == source.get("sha256"):
            return path
    if found:
        raise InputError(
            f"{str(found[0])!r} is not the model that {program.model!r} was compiled from, or it "
            f"has changed; give the right one with --float-model (option onnx)"
        )
    raise InputError(
        f"backend 'float' runs the original model, and {name!r}, from which {program.model!r} was "
        f"compiled, is neither beside the program nor in the working directory; give it with "
        f"--float-model (option onnx)"
    )


def create(
    model: Program | Application | Path, preprocess: str | None, options: Mapping[str, Any]
) -> Backend:
    """Backend for a model, or for the model behind a program."""
    check_options("float", options, ("onnx", "near", "progress", "providers"))
    rest = dict(options)
    given, near = rest.pop("onnx", None), rest.pop("near", None)
    tasks: Sequence[TaskSpec] = ()
    if not isinstance(model, Path):
        preprocess, tasks = model.input.preprocess, model.tasks
        places = [*([Path(near)] if near is not None else []), Path()]
        model = Path(given) if given is not None else source_of(model, places)
    elif given is not None:
        raise InputError(f"--float-model belongs to a program, and {str(model)!r} is a model")
    if not model.is_file():
        raise InputError(f"there is no float model {str(model)!r}")
    return FloatBackend(model, preprocess, tasks=tasks, **rest)
