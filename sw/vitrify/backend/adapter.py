"""``onnx.backend.base.Backend`` over the compiler and the session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError, ModelError, VitrifyError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_application
from vitrify.frontend import ModelInputError, input_range, load
from vitrify.program import Application, HostPart, Program
from vitrify.runtime import InferenceSession

from .forms import Array, as_sample, counts_samples, inputs_of, modern, with_constants

#: Samples of noise that stand for calibration until there is some, and their seed.
_SAMPLES, _SEED = 8, 9
_DEFAULT_ARCH = "kv260"
#: Copies of samples that are all there will be.
ALL_THERE_IS = 32


class Prepared(BackendRep):
    """A compiled model.

    Without calibration it is compiled again for the first inputs that it gets, whose ranges are
    then those of every later run.

    Members
    -------
    compiled : Program or Application
        What runs.
    is_sample : bool
        Whether its inputs and outputs as a whole are one sample.
    """

    compiled: Program | Application
    is_sample: bool

    def __init__(
        self, model: onnx.ModelProto, arch: ArchConfig, calibration: Mapping[str, Array] | None,
        copies: int, settings: Mapping[str, Any],
    ) -> None:
        self._model, self._arch, self._settings = model, arch, settings
        self._copies = copies
        self._names = [value.name for value in inputs_of(model)]
        self._calibrated = calibration is not None
        self._compile(calibration)

    def _compile(self, calibration: Mapping[str, Array] | None) -> None:
        """Compile the model, or the one whose inputs are one sample."""
        refusal: VitrifyError | None = None
        forms = [(self._model, False)] if counts_samples(self._model) else []
        sample = as_sample(self._model)
        forms += [] if sample is None else [(sample, True)]
        for model, self.is_sample in forms:
            feed = calibration
            if feed is not None:
                feed = {
                    name: np.concatenate([array[None] if self.is_sample else array] * self._copies)
                    for name, array in feed.items()
                }
            try:
                self.compiled, self._calibrated = _compiled(model, self._arch, feed)
                break
            except VitrifyError as error:
                # what is said of the form that it has no batch says nothing of the model
                if refusal is None or isinstance(refusal, ModelInputError):
                    refusal = error
        else:
            raise refusal or ModelError(
                "the first axes of the model's inputs differ, and sizes are not fixed: export it "
                "with a batch along the first axis of every input, or with fixed sizes"
            )
        self._session = InferenceSession(self.compiled, **self._settings)

    @property
    def on_core_alone(self) -> bool:
        """Whether no part of it runs on the host."""
        parts = [] if isinstance(self.compiled, Program) else self.compiled.parts
        return not any(isinstance(part, HostPart) for part in parts)

    def run(self, inputs: Any, **_kwargs: Any) -> tuple[Any, ...]:
        """Run once.

        Parameters
        ----------
        inputs : arrays in the order of the model's inputs, by their names, or a single one

        Raises
        ------
        VitrifyError
            A child that says what is wrong with the inputs.
        """
        feed = feed_of(self._names, inputs)
        if not self._calibrated:
            self._compile(feed)
        if self.is_sample:
            feed = {name: array[None] for name, array in feed.items()}
        made = self._session.run(None, feed)
        return tuple(array[0] for array in made) if self.is_sample else tuple(made)


class VitrifyBackend(Backend):
    """The backend: class methods, as ONNX wants them."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the core can run a part of ``model`` that multiplies: whether it compiles."""
        try:
            cls.prepare(model, device, **kwargs)
        except VitrifyError:
            return False
        return True

    @classmethod
    def prepare(
        cls, model: onnx.ModelProto, device: str = "CPU", *,
        arch: ArchConfig | str = _DEFAULT_ARCH, backend: str = "golden",
        calibration: Mapping[str, npt.ArrayLike] | None = None,
        copies: int = 1, constants: Mapping[str, npt.ArrayLike] | None = None, **settings: Any,
    ) -> Prepared:
        """Compile a model.

        Its batch is along the first axis of every input.  If it cannot be compiled so, and all
        sizes are fixed, its inputs as a whole are one sample.

        Parameters
        ----------
        model : of any operator set; one older than the compiler reads is converted by ONNX
        device : ``CPU``, on which the core is simulated; boards are backends
        arch : the core
        backend : of :class:`~vitrify.runtime.InferenceSession`, whose settings may follow
        calibration : arrays by the inputs' names, with what the model will see.  A quantised model
            says its ranges itself; without either, noise shows whether the model compiles, and
            the first inputs that are run are the calibration
        copies : how often the calibration counts.  Few samples are taken to show less than the
            whole range; samples that are all that will ever come count often
        constants : inputs that never change, such as weights

        Raises
        ------
        VitrifyError
            A child that says in a sentence why nothing of the model can run on the core.
        """
        if not cls.supports_device(device):
            raise InputError(
                f"device {device!r} is none of this backend's: it is CPU, where the core is "
                f"simulated; backend='board:…' names a board"
            )
        whole = modern(model)
        if constants:
            whole = with_constants(whole, {n: np.asarray(array) for n, array in constants.items()})
        given = None if calibration is None else {
            name: np.asarray(array) for name, array in calibration.items()
        }
        core = preset(arch) if isinstance(arch, str) else arch
        return Prepared(whole, core, given, copies, {"backend": backend, **settings})

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Compile for ``inputs``, and nothing else if there is no calibration, and run them."""
        constants = kwargs.get("constants") or {}
        names = [value.name for value in inputs_of(model) if value.name not in constants]
        feed = feed_of(names, inputs)
        if kwargs.get("calibration") is None:
            kwargs = {"copies": ALL_THERE_IS, **kwargs, "calibration": feed}
        return cls.prepare(model, device, **kwargs).run(feed)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one operator: on its first input of floats, all others inside the program.

        Parameters
        ----------
        outputs_info : types and shapes of the results; without, ONNX infers them
        kwargs : ``opset_version``, and those of :meth:`prepare`
        """
        arrays = [np.asarray(array) for array in inputs]
        names = [name for name in node.input if name]
        if len(arrays) != len(names):
            raise InputError(
                f"node {node.name!r} ({node.op_type}) has {len(names)} inputs, and {len(arrays)} "
                f"were given"
            )
        imports = [helper.make_opsetid(
            node.domain, kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        )]  # fmt: skip
        feed = dict(zip(names, arrays, strict=True))
        outputs = [name for name in node.output if name]
        facts = [(helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
                 for kind, shape in outputs_info or ()] or [(0, None)] * len(outputs)
        graph = helper.make_graph(
            [node], node.op_type,
            [helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            ) for name, array in feed.items()],
            [helper.make_tensor_value_info(name, *fact)
             for name, fact in zip(outputs, facts, strict=True)],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=imports)
        constants = weights = weights_of(feed)
        if outputs_info is None:
            # shapes may depend on the values of inputs
            model = onnx.shape_inference.infer_shapes(
                with_constants(model, constants), data_prop=True
            )
            constants = {}
        left = {name: array for name, array in feed.items() if name not in weights}
        return cls.run_model(model, left, device, constants=constants, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether ``device`` is the processor."""
        return device.partition(":")[0] == "CPU"


def feed_of(names: Sequence[str], inputs: Any) -> dict[str, Array]:
    """Arrays by their names, given so, in the order of ``names``, or as a single one.

    Raises
    ------
    InputError
        If there are more or fewer.
    """
    if isinstance(inputs, Mapping):
        return {name: np.asarray(array) for name, array in inputs.items()}
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(arrays) != len(names):
        raise InputError(
            f"the model takes {len(names)} inputs ({', '.join(names)}), and {len(arrays)} were "
            f"given"
        )
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}


def weights_of(feed: Mapping[str, Array]) -> dict[str, Array]:
    """All inputs of a node but its first one of floats, on which a core can work."""
    first = next((name for name, array in feed.items() if array.dtype.kind == "f"), None)
    return {name: array for name, array in feed.items() if name != first}


def _compiled(
    model: onnx.ModelProto, arch: ArchConfig, calibration: Mapping[str, Array] | None
) -> tuple[Program | Application, bool]:
    """What ``model`` becomes, and whether its ranges are known."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{Path(model.graph.name).name or 'model'}.onnx"
        onnx.save(model, path)
        known = calibration is not None
        feed = None if calibration is None else dict(calibration)
        if feed is None:
            loaded = load(path, any_inputs=True)
            known = input_range(loaded) is not None
            feed = None if known else _noise(inputs_of(model))
        return compile_application(path, arch, feed, warn=_silent), known


def _noise(inputs: Iterable[onnx.ValueInfoProto]) -> dict[str, Array]:
    """Inputs of some samples; integers, which may choose rows of tables, are ones."""
    rng = np.random.default_rng(_SEED)
    found: dict[str, Array] = {}
    for value in inputs:
        tensor = value.type.tensor_type
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        sizes = [dim.dim_value or _SAMPLES for dim in tensor.shape.dim]
        real = kind.kind == "f"
        found[value.name] = (rng.normal(size=sizes) if real else np.ones(sizes)).astype(kind)
    return found


def _silent(_doubt: str) -> None:
    """A case is no photograph."""
