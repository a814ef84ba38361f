"""Single tokens: rows of what is read."""

from vitrify.ops.operation import Operation

from .plan import plan_select_token

SELECT = Operation(plans={"SelectToken": plan_select_token})
