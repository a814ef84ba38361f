"""From an exported ONNX vision transformer to the canonical graph, in named stages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript import optimizer

from vitrify.arch.errors import ModelError, UnsupportedOpError, VitrifyError
from vitrify.arch.text import short
from vitrify.ir import DTYPE, Evaluator, verify
from vitrify.ir.quantisers import QUANTISERS, quantisers_of

# imported for their handlers
from . import (  # noqa: F401
    on_attention,
    on_contrib,
    on_einsum,
    on_elementwise,
    on_experts,
    on_gate,
    on_linear,
    on_map,
    on_moe,
    on_movement,
    on_picked,
    on_reduce,
    on_select,
    on_stack,
)
from .bodies import known_by_bodies, open_bodies
from .fuse import fuse
from .given import placed
from .integer import without_integers
from .legacy import modernise
from .limits import check_functions
from .load import check_wiring
from .names import rename
from .reference import foldable
from .saturation import with_rounding, without_quantisers
from .simplify import simplify
from .trace import trace, unsupported
from .values import Broken, Unfit
from .weights import check_parameters, check_weights

Keep = Callable[[str, ir.Model], None]

#: Names of the stages, in order; each leaves a model that ONNX Runtime executes.
STAGES = ("original", "folded", "fused", "traced", "canonical")


#: Types of outputs other than float32 (bfloat16, which NumPy lacks, becomes that).
_RESULTS = tuple(
    ir.DataType[name]
    for name in (
        "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64",
    )
)  # fmt: skip

_CLEAN = ir.passes.Sequential(
    passes.IdentityEliminationPass(),
    passes.RemoveUnusedNodesPass(),
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    passes.CommonSubexpressionEliminationPass(),
)


def flattened(model: ir.Model, *, bodies: bool = False) -> ir.Model:
    """``model`` without functions and with its constants folded; it stays as it is.

    With ``bodies``, operators that are known only by what ONNX says that they compute are functions
    as well.

    Nodes and tensors of the result have names of their own.

    Raises
    ------
    ModelError
        If it is no valid ONNX, or larger than any vision transformer.
    """
    check_wiring(model)
    model = model.clone()
    _inline(model)
    _fold_constants(model)
    if bodies and open_bodies(model, known_by_bodies(model)):
        _fold_constants(model)
    passes.NameFixPass()(model)
    return model


def rounded(model: ir.Model) -> ir.Model:
    """A quantised model as floats between its quantisers: a copy that ONNX Runtime runs.

    Its tensors have the names that quantisers of the canonical graph tell.
    """
    model = model.clone()
    _inline(model)
    modernise(model)
    without_integers(model)
    with_rounding(model)
    return model


def _inline(model: ir.Model) -> None:
    check_functions(model)
    passes.InlinePass()(model)


def _fold(model: ir.Model, images: np.ndarray | None) -> ir.Model:
    """Inline functions, compute with floats, fold constants, drop what nothing uses."""
    _inline(model)
    modernise(model)
    without_integers(model)
    without_quantisers(model, images)
    _fold_constants(model)
    return model


def _fold_constants(model: ir.Model) -> None:
    # not optimizer.optimize: its rules take the epsilon 1e-12 of a LayerNorm for zero and drop it
    try:
        optimizer.fold_constants(
            model, onnx_shape_inference=True, should_fold=foldable(model.opset_imports)
        )
        _CLEAN(model)
    except Exception as error:
        if raised_by_us(error):
            raise
        # ONNX's passes take a model for valid; what they raise otherwise is anything.
        raise ModelError(
            f"the model is not valid ONNX: folding its constants fails with "
            f"{type(error).__name__}: {short(str(error))}; check it with onnx.checker"
        ) from error


def raised_by_us(error: BaseException) -> bool:
    """Whether an exception comes from our own code, hence from a fault of ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith("vitrify.")


def _fuse(model: ir.Model, _images: np.ndarray | None) -> ir.Model:
    """One LayerNormalization for every way to spell it."""
    fuse(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def _tidy(model: ir.Model) -> ir.Model:
    """Drop what folding left behind, take in what weights can take, then name everything."""
    passes.RemoveUnusedNodesPass()(model)
    simplify(model)
    rename(model)
    return model


def canonicalise(
    model: ir.Model, keep: Keep | None = None, *, images: np.ndarray | None = None
) -> ir.Model:
    """The canonical graph of ``model``, which stays as it is.

    Parameters
    ----------
    model:
        As :func:`vitrify.frontend.load` returns it.
    keep:
        Called with the name and the model of every stage, see :data:`STAGES`.
    images:
        Inputs [N, C, H, W] that show which saturations of a quantised model matter, see
        :mod:`vitrify.frontend.saturation`.

    Returns
    -------
    onnx_ir.Model
        Nodes of :data:`vitrify.ir.OPS` only, with function bodies; batch ``N``, float32; inputs
        and outputs named as in ``model``.  An output that has another type in ``model`` names it
        in its metadata under :data:`vitrify.ir.DTYPE`; its values are those before rounding.
        What quantisers of ``model`` said: :func:`vitrify.ir.quantisers.quantisers_of`.

    Raises
    ------
    UnsupportedOpError
        Names the first node that is no part of a vision transformer, the reason and the way out.
    """
    check_wiring(model)
    original, model = model, model.clone()
    _keep(keep, "original", model)
    for stage, step in (("folded", _fold), ("fused", _fuse)):
        try:
            model = step(model, images)
        except Unfit as error:
            raise unsupported(error.node, error) from error
        except VitrifyError:
            raise
        except Exception as error:
            # the libraries raise whatever they please on models that break ONNX's rules
            if loads(original):
                raise
            raise ModelError(
                "The model breaks the rules of ONNX and cannot be read; "
                "check it with onnx.checker, then export or download it again."
            ) from error
        _keep(keep, stage, model)
    check_weights(model)
    source, model = _traced(model, keep)
    for result, value in zip(model.graph.outputs, original.graph.outputs, strict=True):
        result.name = value.name
    check_parameters(model, source)
    _keep(keep, "traced", model)
    model = _tidy(model)
    for result, value in zip(model.graph.outputs, original.graph.outputs, strict=True):
        if value.dtype not in (None, ir.DataType.FLOAT, ir.DataType.BFLOAT16):
            if value.dtype not in _RESULTS:
                raise ModelError(
                    f"Output '{value.name}' is of the type {value.dtype.name}, which no result can "
                    "have; export the model with float outputs."
                )
            result.metadata_props[DTYPE] = value.dtype.name
    verify(model)
    said = quantisers_of(source)
    if said:
        model.meta[QUANTISERS] = placed(said, source, model, images)
    _keep(keep, "canonical", model)
    return model


def _traced(model: ir.Model, keep: Keep | None) -> tuple[ir.Model, ir.Model]:
    """What was traced, and its trace: operators that are refused become what ONNX says they are.

    What is refused of a body is the operator that it belongs to.
    """
    refusals: dict[str, UnsupportedOpError] = {}
    while True:
        try:
            return model, trace(model)
        except UnsupportedOpError as error:
            refusal = refusals.get(error.node, error)
            named = [node for node in model.graph if node.name == error.node]
            alike = [node for node in model.graph if named and _are_alike(node, named[0])]
            broken = isinstance(error.__cause__, Broken)
            if broken or len(named) != 1 or not (names := open_bodies(model, alike)):
                raise refusal from error
            refusals.update(dict.fromkeys(names, refusal))
        _fold_constants(model)
        model = _fuse(model, None)
        _keep(keep, "fused", model)


def _are_alike(node: ir.Node, other: ir.Node) -> bool:
    """Whether two nodes are of the same operator and form."""
    own, its = ({name: each.value for name, each in n.attributes.items()} for n in (node, other))
    return node.op_identifier() == other.op_identifier() and own == its


def loads(model: ir.Model) -> bool:
    """Whether ONNX Runtime can make a session of ``model``."""
    try:
        Evaluator(model, [])
    # its exceptions share no base of their own
    except Exception:
        return False
    return True


def _keep(keep: Keep | None, stage: str, model: ir.Model) -> None:
    if keep is not None:
        keep(stage, model)
