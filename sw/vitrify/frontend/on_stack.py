"""Operators on the results of experts side by side."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .mixed import DRAWS, Gating, Stack
from .on_experts import total, weigh
from .stack import lift, move_stack
from .trace import Handler, Tracer, attribute, constant, handler_of, handles
from .values import Traced, Unfit

ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Where", "Abs", "Cast", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish", "Neg", "Pow", "Relu",
    "Selu", "Sigmoid", "Softplus", "Sqrt", "Tanh",
)  # fmt: skip
_MOVES = (
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand",
)  # fmt: skip


@handles(*ELEMENTWISE, kind=Stack)
def elementwise(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Part by part, each by the handler for its kind."""

    def apply(row: list[Traced]) -> Traced:
        handler: Handler | None = handler_of(node, row)
        if handler is None:
            raise Unfit("no operation of a vision transformer is made of it")
        return handler(tracer, node, list(row))[0]

    return [lift(tracer, node, [value for value in inputs if value is not None], apply)]


@handles(*_MOVES, kind=Stack)
def move(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Data movement."""
    stack, *rest = inputs
    if not isinstance(stack, Stack):
        raise Unfit("where it moves elements to depends on the image")
    others = [None if value is None else constant(value, "operand").array for value in rest]
    return [move_stack(tracer, stack, lambda array: tracer.execute(node, [array, *others])[0])]


@handles("ReduceSum", kind=Stack)
def add_up(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """The sum of the parts."""
    stack = inputs[0]
    assert isinstance(stack, Stack), "the kind of this handler"
    axes = attribute(node, "axes", None)
    if len(inputs) > 1 and inputs[1] is not None:
        axes = constant(inputs[1], "axes").array.tolist()
    if axes is None or [axis % len(stack.shape) for axis in axes] != [stack.axis]:
        raise Unfit("it adds up something else than the results of experts")
    result = total(tracer, list(stack.parts))
    if attribute(node, "keepdims", 1):
        result = move_stack(
            tracer, Stack([result], stack.axis, node), lambda array: array
        )  # fmt: skip
    return [result]


@handles("GatherElements", kind=Stack)
def choose(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """The results of the chosen experts: for each choice a sum over all, weighed by zero or one."""
    stack, index = inputs
    if not isinstance(stack, Stack) or not isinstance(index, Gating):
        raise Unfit("it gathers something else than the results of chosen experts")
    axis = attribute(node, "axis", 0) % len(stack.shape)
    lead = (*index.shape[:axis], *index.shape[axis + 1 :])
    if axis != stack.axis or lead != stack.parts[0].shape:
        raise Unfit("it gathers along something else than the experts")
    choices: list[Traced] = []
    for choice in range(index.shape[axis]):
        terms: list[Traced] = []
        for number, part in enumerate(stack.parts):
            arrays = [index.arrays[draw].take(choice, axis) == number for draw in range(DRAWS)]
            mask = Gating([array.astype(np.float32) for array in arrays], index.gates, index.node)
            terms.append(weigh(tracer, mask, part))
        choices.append(total(tracer, terms))
    return [Stack(choices, axis, node)]
