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
from vitrify.arch.formats import INPUT_TYPES
from vitrify.program import (
    Application,
    ImageSpec,
    Program,
    TaskSpec,
    TensorSpec,
    as_batch,
    as_inputs,
    as_tasks,
)
from vitrify.program.application import in_batches
from vitrify.program.preprocess import of_pixels
from vitrify.program.tasks import Numbers
from vitrify.runtime.backend import (
    TYPES,
    Backend,
    NodeArg,
    Others,
    Progress,
    check_options,
    no_progress,
)
from vitrify.runtime.host import CPU, first_line

#: Images that ONNX Runtime gets at once: enough to fill its threads, little memory.
_CHUNK = 16
#: More tasks than any model has, where nothing says how many there are.
_MANY = 1 << 31


#: NumPy's names of types, where they are not ONNX Runtime's; bfloat16, which it lacks, is wider.
_NUMPY = {**{ours: numpy for numpy, ours in TYPES.items()}, "bfloat16": "float32"}


class Opened:
    """A model in ONNX Runtime.

    Raises
    ------
    ModelError
        If ONNX Runtime refuses it, or it takes something else than numbers or booleans.
    """

    def __init__(self, path: Path, providers: Sequence[str] = CPU) -> None:
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
            self.session = ort.InferenceSession(path, settings, list(providers))
        # ONNX Runtime's exceptions share no base of their own.
        except Exception as error:
            raise ModelError(
                f"{str(path)!r} is no ONNX model that ONNX Runtime can load: {first_line(error)}"
            ) from error
        if not self.session.get_inputs():
            raise ModelError(f"model {path.name!r} has no input")
        arguments = self.arguments()
        for arg in arguments:
            if _name(arg.type) not in INPUT_TYPES:
                raise ModelError(
                    f"input {arg.name!r} of model {path.name!r} is of the type {arg.type}, but "
                    f"numbers or booleans are needed"
                )
        #: Whether the channels of each of its images are last, by the input's name.
        self.images = {
            arg.name: is_channels_last_in(proto, arg.name) for arg in arguments if _is_image(arg)
        }
        #: Whether it takes an image and tasks, and no others.
        self.is_of_images = _is_image(arguments[0]) and all(map(_is_task, arguments[1:]))

    def arguments(self) -> list[NodeArg]:
        """The inputs, images first."""
        found = sorted(self.session.get_inputs(), key=lambda arg: len(arg.shape) != 4)
        return [NodeArg(arg.name, arg.type, list(arg.shape)) for arg in found]

    def outputs(self) -> list[NodeArg]:
        """The outputs."""
        return [NodeArg(a.name, a.type, list(a.shape)) for a in self.session.get_outputs()]


class TensorBackend(Backend):
    """ONNX Runtime for a model with other inputs than an image."""

    name = "float"
    is_of_images = False

    def __init__(
        self, opened: Opened, preprocess: str | None = None, *, progress: Progress | None = None
    ) -> None:
        self._session, self._progress = opened.session, progress or no_progress
        self.inputs, self.outputs = opened.arguments(), opened.outputs()
        self._images, self._preprocess = opened.images, preprocess
        if preprocess is not None and not self._images:
            raise InputError(
                f"preprocess {preprocess!r} says how pictures become images, and the model takes "
                f"none; leave it out"
            )

    def run(
        self, names: Sequence[str], feed: npt.NDArray[Any], others: Others
    ) -> list[npt.NDArray[Any]]:
        """Run all samples in batches."""
        given = {self.inputs[0].name: feed, **others}
        arrays = as_inputs([self._spec(arg, given) for arg in self.inputs], given)
        images, sizes = len(next(iter(arrays.values()))), [arg.shape[0] for arg in self.inputs]
        fixed = next((size for size in sizes if isinstance(size, int)), None)

        def run(batch: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
            try:
                return self._session.run(list(names), {
                    arg.name: _as_given(batch[arg.name], arg, self._images.get(arg.name, False))
                    for arg in self.inputs
                })  # fmt: skip
            except Exception as error:
                raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error

        made = in_batches(run, arrays, fixed)
        self._progress(images, images)
        return made

    def _spec(self, arg: NodeArg, given: Others) -> ImageSpec | TensorSpec:
        if arg.name not in self._images:
            return _spec_of(arg, given)
        shape = np.shape(given[arg.name]) if arg.name in given else ()
        # It is for those that are no pixels.
        text = None if arg.type == "tensor(uint8)" else self._preprocess
        return _image_spec(arg, shape, text, self._images[arg.name])


class FloatBackend(Backend):
    """ONNX Runtime for a model of images, and tasks if it has any."""

    name = "float"

    def __init__(
        self, opened: Opened, preprocess: str | None = None, *, tasks: Sequence[TaskSpec] = (),
        progress: Progress | None = None,
    ) -> None:
        self._session = opened.session
        self._progress = progress or no_progress
        inputs = opened.arguments()
        self.inputs, self.outputs = inputs, opened.outputs()
        self.channels_last = opened.images[inputs[0].name]
        self._preprocess, self._tasks = preprocess, tasks

    def run(
        self, names: Sequence[str], feed: npt.NDArray[Any], others: Others
    ) -> list[npt.NDArray[Any]]:
        """Run the batch in chunks (one by one when the model's batch is fixed to 1)."""
        arg = self.inputs[0]
        spec = _image_spec(arg, feed.shape, self._preprocess, self.channels_last)
        batch = as_batch(spec, feed)
        fixed = arg.shape[0]
        chunk = fixed if isinstance(fixed, int) and fixed > 0 else _CHUNK
        if isinstance(fixed, int) and fixed > 0 and len(batch) % fixed:
            raise InputError(
                f"the model takes batches of {fixed}, and {len(batch)} images were given"
            )
        specs = self._tasks or [TaskSpec(name=i.name, count=_MANY) for i in self.inputs[1:]]
        numbers = as_tasks(specs, others, len(batch))
        start, parts, order = time.perf_counter(), [], []
        for piece in self._pieces(numbers, chunk):
            given = {
                task.name: numbers[piece[:1] if _shared(task) else piece, i].reshape(
                    () if not task.shape else -1
                )
                for i, task in enumerate(self.inputs[1:])
            }
            try:
                parts.append(self._session.run(list(names), {
                    arg.name: _as_given(batch[piece], arg, self.channels_last), **given
                }))  # fmt: skip
            except Exception as error:
                raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error
            order.append(piece)
            self._progress(sum(map(len, order)), len(batch))
        self.seconds = time.perf_counter() - start
        back = np.argsort(np.concatenate(order))
        return [np.concatenate(results)[back] for results in zip(*parts, strict=True)]

    def _pieces(self, numbers: Numbers, chunk: int) -> list[npt.NDArray[np.int64]]:
        """Images that run together: a chunk, of one task where the model takes a single number."""
        groups = [np.arange(len(numbers))]
        if any(map(_shared, self.inputs[1:])):
            _, which = np.unique(numbers, axis=0, return_inverse=True)
            groups = [np.flatnonzero(which == i) for i in range(which.max() + 1)]
        return [group[at : at + chunk] for group in groups for at in range(0, len(group), chunk)]


def _name(name: str) -> str:
    """NumPy's name of one of ONNX Runtime's types, float32 for bfloat16."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    return _NUMPY.get(inner, inner)


def _kind(name: str) -> np.dtype[Any]:
    """NumPy's type for one of ONNX Runtime's, float32 for bfloat16."""
    return np.dtype(_name(name))


def _typed(array: npt.NDArray[Any], name: str) -> Any:
    """An array as an input of a type of ONNX Runtime's."""
    if name != "tensor(bfloat16)":
        return array.astype(_kind(name), copy=False)
    import onnx
    import onnxruntime as ort

    kind = onnx.TensorProto.BFLOAT16
    bits = array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind), order="C").view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def _as_given(batch: npt.NDArray[Any], arg: NodeArg, channels_last: bool) -> Any:
    """Images ``[N, C, H, W]``, or tensors, in the layout and the type that the model takes."""
    return _typed(batch.transpose(0, 2, 3, 1) if channels_last else batch, arg.type)


def _image_spec(
    arg: NodeArg, given: tuple[int, ...], preprocess: str | None, channels_last: bool
) -> ImageSpec:
    """What an image is; sizes that the model leaves open are those of the shape ``given``."""
    a, b, c = (
        size if isinstance(size, int) else actual
        for size, actual in zip(arg.shape[1:], given[1:] if len(given) == 4 else (1, 1, 1),
                                strict=True)
    )  # fmt: skip
    shape = (c, a, b) if channels_last else (a, b, c)
    if arg.type == "tensor(uint8)":
        preprocess = of_pixels(arg.name, "uint8", preprocess, shape[0])
    return ImageSpec(
        name=arg.name, shape=shape, preprocess=preprocess,
        channels_last=channels_last,
    )


def _spec_of(arg: NodeArg, given: Others) -> TensorSpec:
    """What an input takes; sizes that the model leaves open are those of what is given."""
    actual = np.shape(given[arg.name])[1:] if arg.name in given else ()
    shape = [
        size if isinstance(size, int) else actual[place] if place < len(actual) else 1
        for place, size in enumerate(arg.shape[1:])
    ]
    if not arg.shape:
        raise ModelError(f"input {arg.name!r} of the model has no batch: its shape is []")
    return TensorSpec(name=arg.name, shape=tuple(shape), dtype=_name(arg.type))


def _is_image(arg: NodeArg) -> bool:
    pixels = arg.type == "tensor(uint8)"
    return len(arg.shape) == 4 and (pixels or _kind(arg.type).kind == "f")


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
        preprocess, tasks = model.preprocess, model.tasks
        places = [*([Path(near)] if near is not None else []), Path()]
        model = Path(given) if given is not None else source_of(model, places)
    elif given is not None:
        raise InputError(f"--float-model belongs to a program, and {str(model)!r} is a model")
    if not model.is_file():
        raise InputError(f"there is no float model {str(model)!r}")
    opened = Opened(model, rest.pop("providers", CPU))
    if not opened.is_of_images:
        return TensorBackend(opened, preprocess, **rest)
    return FloatBackend(opened, preprocess, tasks=tasks, **rest)
