"""All operations.  A new one is a folder, and a line here."""

from __future__ import annotations

from .activation import ACTIVATION
from .add import ADD
from .attention import ATTENTION
from .channels import CHANNELS
from .conv import CONV
from .embed import EMBED
from .experts import EXPERTS
from .linear import LINEAR
from .map_pool import MAP_POOL
from .mix import MIX
from .multiply import MULTIPLY
from .norm import NORM
from .passing import PASSING
from .pool import POOL
from .product import PRODUCT
from .rotary import ROTARY
from .rows import ROWS
from .transpose import TRANSPOSE

OPERATIONS = (
    EMBED, LINEAR, CONV, NORM, ACTIVATION, ADD, ROWS, CHANNELS, ATTENTION, EXPERTS, POOL, MAP_POOL,
    MIX, MULTIPLY, ROTARY, PRODUCT, TRANSPOSE, PASSING,
)  # fmt: skip

#: How canonical operations are made of others, by their names.
DECOMPOSITIONS = {
    name: each for operation in OPERATIONS for name, each in operation.decompositions.items()
}
#: How each canonical operation is planned, by its name.
PLANS = {name: plan for operation in OPERATIONS for name, plan in operation.plans.items()}
#: How each class of plan ops becomes integers.
ASSEMBLES = {kind: each for operation in OPERATIONS for kind, each in operation.assembles.items()}
#: How each class of integer ops becomes instructions.
RULES = {kind: rule for operation in OPERATIONS for kind, rule in operation.rules.items()}
