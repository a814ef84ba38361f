"""The integer graph: what the quantiser decides and the compiler lowers.

Every op is one matrix product of the core (or a pair of them, for attention) with its operand
transform and epilogue; every number in it is an integer that the core uses.  Scales are kept
beside the tensors only to interpret results.  All tensors are two-dimensional, ``[rows,
channels]``, one image.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]
Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class QTensor:
    """An integer tensor: real value = ``scale * (q - zero_point) + offset``.

    ``bits`` 16 marks the residual stream and results; ``scale`` is one value or one a channel.
    """

    name: str
    rows: int
    channels: int
    bits: int
    scale: float | Float
    zero_point: int = 0
    #: Only to interpret the tensor: what was taken off each channel (the mean of attention keys).
    offset: float | Float = 0.0
    #: Only to interpret the tensor: the last ``len(copies)`` channels hold what large units have
    #: beyond the range; the i-th of them adds to channel ``copies[i]``.
    copies: tuple[int, ...] = ()

    def dequantise(self, q: npt.NDArray[np.integer]) -> Float:
        """Real values ``[..., rows, channels - len(copies)]`` of the integers."""
        real = (q.astype(np.float64) - self.zero_point) * self.scale + self.offset
        if not self.copies:
            return real
        whole = np.ascontiguousarray(real[..., : self.channels - len(self.copies)])
        for i, channel in enumerate(self.copies):
            whole[..., channel] += real[..., i - len(self.copies)]
        return whole


@dataclass(frozen=True)
class Requant:
    """Accumulator to output: ``round(sat(round((acc + bias) >> pre)) * multiplier >> post)``.

    ``multiplier`` and ``bias`` have one entry a column (weights), or are single values.
    ``post_shift`` is the shift itself, one of ``formats.POST_SHIFTS``.
    """

    pre_shift: int
    post_shift: int
    multiplier: UInt16 | int
    bias: Int32 | int = 0


@dataclass(frozen=True)
class Norm:
    """Operand transform of an int16 input.

    ``statistics`` True: LayerNorm (x - mean) * rstd from the row's own statistics; False: the
    fixed factor ``mantissa / 2**RSQRT_FRAC / 2**shift`` (see ``golden.ops.layernorm``).
    ``gain`` has one unsigned 8-bit value a channel.
    """

    gain: UInt8
    statistics: bool = True
    shift: int = 0
    mantissa: int = 0


@dataclass(frozen=True)
class Statistics:
    """LayerNorm statistics that the op which completes an int16 row gathers."""

    inv_dim: int
    inv_shift: int
    #: Added to the variance, in step² / 2**(2*MEAN_FRAC).
    epsilon: int


@dataclass(frozen=True)
class QInput:
    """The image: float ``[C, H, W]`` to int8 rows ``[rows, C*ph*pw]``.

    ``q = clip(round(x * multiplier[c] + offset[c]), -128, 127)``; the first ``prefix`` rows
    (class token …) are zero.  Columns are ordered (c, y, x) within the patch.  Where the
    preprocessing is known, multiplier and offset map uint8 pixels to ``u8 - 128`` exactly.
    """

    name: str
    out: str
    shape: tuple[int, int, int]
    patch: tuple[int, int]
    prefix: int
    multiplier: Float
    offset: Float


@dataclass(frozen=True)
class QLinear:
    """``out = requant(transform(x[rows]) @ weight.T)``, or added to ``out`` (residual).

    With ``task``, ``weight [S, out, in]``, multiplier and bias ``[S, out]`` have one set for each
    of the S tasks; the input of that name chooses.
    """

    name: str
    x: str
    out: str
    weight: Int8
    requant: Requant
    norm: Norm | None = None
    #: int8 image of each byte, indexed by its bit pattern.
    table: Int8 | None = None
    #: Accumulate into the int16 tensor ``out``.
    add: bool = False
    statistics: Statistics | None = None
    #: First row and number of rows of ``x`` (default: all).
    rows: tuple[int, int] | None = None
    task: str | None = None


@dataclass(frozen=True)
class QWeighing:
    """Heads of an int8 tensor multiplied by gate weights, int8 again.

    The gate weights are those of :class:`QExperts`; each logit is for the next so many ``heads``,
    from head ``first`` on.  ``weight``, ``requant.multiplier`` and ``requant.bias`` have one entry
    a channel of these heads: ``out = requant(weight * x)``, its multiplier scaled by the gate
    weight, zero where the logit was not chosen.
    """

    logits: str
    first: int
    heads: tuple[int, ...]
    choices: int
    normalise: bool
    weight: Int8
    requant: Requant


@dataclass(frozen=True)
class QAttention:
    """Scores (int8 logits, base 2), softmax, values: three int8 tensors to one.

    Channels are ``heads * head_dim``, head by head.  ``logits`` gives the scores' requantisation
    (single multiplier); the output has the value tensor's scale, but for heads that are
    ``weighed``, each by one weighing at most.  Afterwards ``balance`` weighs every
    head, with as many choices as logits.
    """

    name: str
    q: str
    k: str
    v: str
    out: str
    heads: int
    logits: Requant
    weighed: tuple[QWeighing, ...] = ()
    balance: QWeighing | None = None

    @property
    def weighings(self) -> tuple[QWeighing, ...]:
        """All of them, in the order in which they are done."""
        return self.weighed if self.balance is None else (*self.weighed, self.balance)


@dataclass(frozen=True)
class QPool:
    """Mean over rows ``start`` … ``stop - 1`` of an int8 tensor: constant weights times ``x``.

    Every row enters with the same operand ``weight`` (1 … 127); the single multiplier of
    ``requant`` divides.
    """

    name: str
    x: str
    out: str
    start: int
    stop: int
    weight: int
    requant: Requant
    statistics: Statistics | None = None


@dataclass(frozen=True)
class QExperts:
    """``out = residual +`` the weighted results of each row's best experts, all int16.

    The ``choices`` largest of ``logits`` (int16, see ``golden.ops.routing``) choose; the weights
    are their softmax over all experts, or with ``normalise`` over the chosen ones.  An expert is a
    pair of layers: ``x`` to a hidden tensor of its own, and that to ``out`` with ``add``.
    """

    name: str
    x: str
    logits: str
    residual: str
    out: str
    choices: int
    normalise: bool
    experts: tuple[tuple[QLinear, QLinear], ...]
    statistics: Statistics | None = None
    #: Share of the images in which anybody asks for an expert, as far as known.
    asked: tuple[float, ...] = ()


QOp = QLinear | QAttention | QPool | QExperts


@dataclass(frozen=True)
class QConstant:
    """Initial value of an int16 tensor (class token, positions, patch bias)."""

    out: str
    value: Int16


@dataclass
class QuantGraph:
    """The whole network, ops in execution order."""

    name: str
    input: QInput
    constants: list[QConstant] = field(default_factory=list)
    ops: list[QOp] = field(default_factory=list)
    tensors: dict[str, QTensor] = field(default_factory=dict)
    #: ONNX output name → tensor (int16 ``[1, classes]`` or ``[rows, channels]``).
    outputs: dict[str, str] = field(default_factory=dict)
    #: Arrays' element counts per image, before padding: exact multiply-accumulates per op name.
    macs: dict[str, int] = field(default_factory=dict)
    #: Op name → tensor of the canonical float graph that it approximates, for reports.
    values: dict[str, str] = field(default_factory=dict)
    #: Inputs that choose among tasks: name → number of tasks.
    tasks: dict[str, int] = field(default_factory=dict)
