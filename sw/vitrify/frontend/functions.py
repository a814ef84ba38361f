"""Functions of one variable: known ones told by their values, the others written as ONNX text.

A chain of elementwise operators is run on a grid of sample points and compared with the table of
known functions, so that every spelling of GELU, SiLU and the others is recognised alike.  What is
none of them becomes an ``Activation`` whose kind is the chain itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from vitrify.ir import UNARY, attributes_of

from .values import Const, Elementwise, Unfit, View

#: End of the fine part of the grid; it covers every bend of the known functions.
NEAR = 10.0
_FAR = np.geomspace(NEAR, 1e4, 200)[1:]
#: Where functions are sampled: finely around zero, and far out, where a clamp shows.
GRID = np.concatenate([-_FAR[::-1], np.linspace(-NEAR, NEAR, 2001), _FAR])
#: Beyond this float32 overflows in the exponential; a chain that does so is judged elsewhere.
_EXPONENT = 80.0
#: Largest deviation of a recognised function: constants may have been rounded to float16.
TOLERANCE = 1.5e-4
#: Deviation of scale and shift that rounding of constants explains.
SNAP = 1e-5

_REFERENCES = {kind: row.reference(GRID) for kind, row in UNARY.items()}
#: Operators newer than the operator set of function bodies, as the known functions that they are.
_NEWER = {("Gelu", "none"): "gelu", ("Gelu", "tanh"): "gelu_tanh"}
#: Stands for infinity, which ONNX text cannot write.
_LARGEST = float(np.finfo(np.float32).max)


def _fit(samples: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Weighted least squares ``samples = a * reference + b``: (a, b, largest deviation).

    Far out deviations count relative to the reference.
    """
    size = np.where(np.abs(GRID) > NEAR, np.maximum(np.abs(reference), 1.0), 1.0)
    seen = np.isfinite(samples)
    columns = (np.stack([reference, np.ones_like(reference)], axis=1) / size[:, None])[seen]
    (a, b), *_ = np.linalg.lstsq(columns, samples[seen] / size[seen], rcond=None)
    a = 1.0 if abs(a - 1.0) < SNAP else float(a)
    b = 0.0 if abs(b) < SNAP else float(b)
    return a, b, float((np.abs(a * reference + b - samples) / size)[seen].max())


def affine_of(samples: np.ndarray) -> tuple[float, float] | None:
    """Scale and shift of an affine function; those of float32 are kept to the last bit."""
    if not np.isfinite(samples).all():
        return None
    zero, near = GRID.size // 2, np.flatnonzero(np.abs(GRID) == NEAR)
    b = float(samples[zero])
    a = float((samples[near[1]] - samples[near[0]]) / (2 * NEAR))
    error = np.abs(a * GRID + b - samples) / np.maximum(np.abs(GRID), NEAR)
    return (a, b) if error.max() <= SNAP * max(1.0, abs(a), abs(b)) else None


def known(samples: np.ndarray) -> tuple[float, str, float, float] | None:
    """``samples = a * kind + b`` for a known function: (deviation, kind, a, b), or ``None``."""
    inner = np.abs(GRID) <= _EXPONENT
    if not np.isfinite(samples[inner]).all():
        return None
    best: tuple[float, str, float, float] | None = None
    for kind, reference in _REFERENCES.items():
        a, b, error = _fit(samples, reference)
        if error <= TOLERANCE * max(1.0, abs(a)) and (best is None or error < best[0]):
            best = error, kind, a, b
    return best


def samples_of(value: View | Elementwise) -> Mapping[View | Elementwise, np.ndarray]:
    """The values of ``value`` on the grid, for every tensor that it is a function of."""
    own: dict[View | Elementwise, np.ndarray] = {value: GRID}
    return {**value.samples, **own} if isinstance(value, Elementwise) else own


def text_of(value: Elementwise, root: View | Elementwise) -> str:
    """The chain from ``root`` to ``value`` as ONNX text from x to y."""
    names: dict[object, str] = {root: "x"}
    lines: list[str] = []

    def name_of(part: object) -> str:
        if part in names:
            return names[part]
        if isinstance(part, Const):
            names[part] = f"c{len(names)}"
            lines.append(f"{names[part]} = {_constant(part.array.reshape(()))} ()")
        elif isinstance(part, Elementwise):
            operands = [name_of(operand) for operand in part.operands]
            names[part] = "y" if part is value else f"t{len(names)}"
            lines.extend(_lines(part, operands, names[part]))
        else:
            raise Unfit("it combines two different activations", node=value.node)
        return names[part]

    name_of(value)
    return "\n".join(lines)


def _constant(number: np.ndarray) -> str:
    if number.dtype == bool:
        return f"Constant <value = bool {{{int(number)}}}>"
    return f"Constant <value_float = {_number(float(number))}>"


def _number(number: float) -> str:
    if np.isnan(number):
        raise Unfit("its constant is no number")
    return repr(float(np.clip(number, -_LARGEST, _LARGEST)))


def _lines(value: Elementwise, operands: list[str], result: str) -> list[str]:
    """One step of a chain."""
    node, attributes = value.node, attributes_of(value.node)
    if value.kind is None:
        kind = _NEWER.get((node.op_type, attributes.get("approximate", "none")))
        value.kind = None if kind is None else (kind, 1.0)
    if value.kind is not None:
        kind, scale = value.kind
        if scale == 1.0:
            return _spliced(UNARY[kind].body, operands[0], result)
        wide, made, factor = (f"{result}_{part}" for part in ("in", "out", "scale"))
        return [
            f"{factor} = {_constant(np.array(scale))} ()",
            f"{wide} = Mul({operands[0]}, {factor})",
            *_spliced(UNARY[kind].body, wide, made),
            f"{result} = Div({made}, {factor})",
        ]
    if node.op_type == "Swish":
        alpha = _constant(np.array(attributes.get("alpha", 1.0)))
        return [
            f"{result}_a = {alpha} ()  {result}_m = Mul({operands[0]}, {result}_a)",
            f"{result}_s = Sigmoid({result}_m)  {result} = Mul({operands[0]}, {result}_s)",
        ]
    if node.op_type == "Cast":
        attributes = {"to": ir.DataType.FLOAT.value}
    return [_line(node.op_type, attributes, operands, result)]


def _line(op_type: str, attributes: Mapping[str, object], operands: list[str], result: str) -> str:
    written = ", ".join(f"{name} = {_attribute(value)}" for name, value in attributes.items())
    formals = f" <{written}> " if written else ""
    return f"{result} = {op_type}{formals}({', '.join(operands)})"


def _attribute(value: object) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int):
        return str(value)
    raise Unfit("its attributes are no numbers")


def _spliced(body: str, operand: str, result: str) -> list[str]:
    """A function body between two names; names between get the result's in front."""
    head = '<domain: "d", opset_import: ["": 18]> f (x) => (y) {'
    lines = []
    for step in onnx.parser.parse_function(f"{head}{body}}}").node:
        names = [
            {"x": operand, "y": result}.get(name, f"{result}_{name}")
            for name in (*step.output, *step.input)
        ]
        attributes = {found.name: ir.from_proto(found).value for found in step.attribute}
        lines.append(_line(step.op_type, attributes, names[1:], names[0]))
    return lines
