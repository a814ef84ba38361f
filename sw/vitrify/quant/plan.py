"""The plan: ops of the integer graph in execution order, still with float parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vitrify.arch.errors import UnsupportedOpError

Array = np.ndarray
Rows = tuple[int, int]


@dataclass(frozen=True)
class LayerNorm:
    """Parameters of a LayerNorm on read; ``value`` names its float result."""

    node: str
    value: str
    gamma: Array
    beta: Array
    epsilon: float


@dataclass(frozen=True)
class Operand:
    """What a matrix product streams: ``rows`` of a tensor, through a LayerNorm or not.

    ``value`` names the float tensor with the same contents (before norm and row choice).
    """

    tensor: str
    value: str
    #: Residual stream (int16): its version, the number of additions so far.  int8: ``None``.
    version: int | None = None
    rows: Rows | None = None
    norm: LayerNorm | None = None


@dataclass(frozen=True)
class PatchOp:
    """Patch embedding and tokens: constant plus matrix product, version 0 of the stream."""

    name: str
    out: str
    value: str
    patch: tuple[int, int]
    weight: Array
    bias: Array
    prefix: Array
    position: Array
    version: int = 0


@dataclass(frozen=True)
class LinearOp:
    """A linear map, with its activation, to one of three kinds of result.

    ``role`` is ``int8``, ``stream`` (new int16 tensor that others read), ``add``, ``output`` or
    ``gate`` (logits for the router).  ``before`` names the float tensor before the activation.
    With ``task``, the input that chooses among them, ``weight`` is ``[S, out, in]``, ``bias``
    ``[S, out]``.
    """

    name: str
    x: Operand
    weight: Array
    bias: Array
    out: str
    value: str
    role: str
    version: int = 0
    kind: str | None = None
    before: str = ""
    #: Not in the model: a copy into another format, which counts no multiplications.
    identity: bool = False
    task: str | None = None


@dataclass(frozen=True)
class ExpertsOp:
    """A stream plus what experts make of a stream: the next version, in a tensor of its own.

    ``logits`` is the gate's tensor and ``scores`` the float tensor with the same contents; ``w1``
    to ``b2`` and ``k`` as in the canonical operation.  ``value`` is empty where the float graph has
    no such sum.
    """

    name: str
    x: Operand
    logits: str
    scores: str
    residual: str
    out: str
    value: str
    version: int
    w1: Array
    b1: Array
    w2: Array
    b2: Array
    k: int
    normalize: bool
    kind: str


@dataclass(frozen=True)
class Weighing:
    """Heads multiplied by weights: softmax of the ``k`` largest logits, zero for the others.

    ``logits`` is the gate's tensor and ``scores`` the float tensor with the same contents; each
    logit is for the next so many ``heads``, from head ``first`` on.
    """

    logits: str
    scores: str
    first: int
    heads: tuple[int, ...]
    k: int
    normalize: bool


@dataclass(frozen=True)
class AttentionOp:
    """Softmax attention of three int8 tensors.

    Some heads may be ``weighed``, and what comes of that ``balance``d, all heads of it.
    """

    name: str
    q: str
    k: str
    v: str
    out: str
    heads: int
    scale: float
    weighed: tuple[Weighing, ...] = ()
    balance: Weighing | None = None

    @property
    def weighings(self) -> tuple[Weighing, ...]:
        """All of them, in the order in which they are done."""
        return self.weighed if self.balance is None else (*self.weighed, self.balance)

    @property
    def value(self) -> str:
        """Float tensor with the same contents."""
        return self.out


@dataclass(frozen=True)
class PoolOp:
    """Mean over rows of an int8 tensor, to an int16 tensor."""

    name: str
    x: str
    out: str
    value: str
    start: int
    stop: int
    version: int = 0


PlanOp = PatchOp | LinearOp | AttentionOp | PoolOp | ExpertsOp


@dataclass
class Plan:
    """Ops in execution order; ``outputs`` maps ONNX names to tensors.

    ``tasks`` holds the number of tasks by the input that chooses; ``roots`` the stream that a
    tensor continues and shares its step with.
    """

    name: str
    image: str
    ops: list[PlanOp] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)

    def operands(self) -> list[Operand]:
        """What is streamed past weights, in the order of the ops."""
        return [op.x for op in self.ops if isinstance(op, LinearOp | ExpertsOp)]


def unsupported(node: ir.Node | str, why: str) -> UnsupportedOpError:
    """The error for a node the core cannot run."""
    if isinstance(node, str):
        return UnsupportedOpError(f"Node {node!r} cannot run on the core: {why}.")
    return UnsupportedOpError(f"Node {node.name!r} ({node.op_type}) cannot run on the core: {why}.")


# Order -------------------------------------------------------------------------------------
def reads(op: PlanOp) -> list[tuple[str, int]]:
    """``(tensor, version)`` of everything an op reads; int8 tensors have version 0."""
    if isinstance(op, LinearOp):
        return [(op.x.tensor, op.x.version or 0)]
    if isinstance(op, AttentionOp):
        return [(name, 0) for name in (op.q, op.k, op.v, *(w.logits for w in op.weighings))]
    if isinstance(op, ExpertsOp):
        return [(op.x.tensor, op.x.version or 0), (op.logits, 0), (op.residual, op.version - 1)]
    return [(op.x, 0)] if isinstance(op, PoolOp) else []


def ordered(ops: list[PlanOp]) -> list[PlanOp]:
    """An order in which no addition overwrites a version that someone still has to read."""
    readers: dict[tuple[str, int], set[int]] = {}
    writer: dict[tuple[str, int], int] = {}
    for i, op in enumerate(ops):
        for key in reads(op):
            readers.setdefault(key, set()).add(i)
        writer[op.out, getattr(op, "version", 0)] = i
    before: list[set[int]] = []
    for i, op in enumerate(ops):
        if any(key not in writer for key in reads(op)):
            raise unsupported(
                op.value, "it reads a sum that the core cannot keep beside that with the experts"
            )
        needs = {writer[key] for key in reads(op)}
        version = getattr(op, "version", 0)
        if version and not isinstance(op, ExpertsOp):
            old = (op.out, version - 1)
            needs |= {writer[old]} | (readers.get(old, set()) - {i})
        before.append(needs)
    order: list[int] = []
    waiting = list(range(len(ops)))
    while waiting:
        ready = next((i for i in waiting if before[i] <= set(order)), None)
        if ready is None:
            blocked = next(op for op in (ops[i] for i in waiting) if getattr(op, "version", 0))
            raise unsupported(
                blocked.value,
                f"the residual stream {blocked.out!r} is still needed as it was before this "
                f"addition, and the core keeps one version of it",
            )
        order.append(ready)
        waiting.remove(ready)
    return [ops[i] for i in order]
