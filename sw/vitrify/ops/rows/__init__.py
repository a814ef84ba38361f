"""Single tokens, rows in any order, tensors one behind the other or side by side."""

from vitrify.ops.operation import Operation

from . import joined
from .decompose import decompose_rows, decompose_unfold
from .joined import ConstantOp, plan_concat_channels, plan_concat_rows, plan_constant_rows
from .plan import plan_rows, plan_select_token, plan_unfold

ROWS = Operation(
    decompositions={"Rows": decompose_rows, "Unfold": decompose_unfold},
    plans={
        "SelectToken": plan_select_token, "Rows": plan_rows, "Unfold": plan_unfold,
        "ConcatRows": plan_concat_rows, "ConcatChannels": plan_concat_channels,
        "ConstantRows": plan_constant_rows,
    },
    assembles={ConstantOp: joined.assemble},
)
