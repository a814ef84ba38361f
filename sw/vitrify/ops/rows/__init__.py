"""Single tokens, rows in any order, tensors one behind the other or side by side."""

from vitrify.ops.operation import Operation

from . import joined
from .joined import ConstantOp, plan_concat_channels, plan_concat_rows, plan_constant_rows
from .plan import plan_rows, plan_select_token

ROWS = Operation(
    plans={
        "SelectToken": plan_select_token, "Rows": plan_rows, "ConcatRows": plan_concat_rows,
        "ConcatChannels": plan_concat_channels, "ConstantRows": plan_constant_rows,
    },
    assembles={ConstantOp: joined.assemble},
)
