"""Single tokens, and rows in any order: what is read is read by a list."""

from vitrify.ops.operation import Operation

from .plan import plan_rows, plan_select_token

ROWS = Operation(plans={"SelectToken": plan_select_token, "Rows": plan_rows})
