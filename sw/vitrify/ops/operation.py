"""What an operation is made of: the object that its folder hands to the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vitrify.codegen.rule import Rule
from vitrify.quant.assemble import Assemble
from vitrify.quant.decompose import Decompose
from vitrify.quant.graph import QOp
from vitrify.quant.plan import PlanOp
from vitrify.quant.planner import PlanNode


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One folder of :mod:`vitrify.ops`.

    An operation that others can express has decompositions only; one that is a way of reading or
    writing other tensors (a normalisation, a sum, some rows) has a plan only; one that uses integer
    ops of another folder has no rules of its own.

    Parameters
    ----------
    decompositions : from a canonical operation, by its name, to others (``decompose.py``)
    plans : from a canonical operation, by its name, to a value in the plan (``plan.py``)
    assembles : from each class of plan ops to integers (``assemble.py``)
    rules : from each class of integer ops (``integer.py``) to instructions (``lower.py``)
    """

    decompositions: Mapping[str, Decompose] = field(default_factory=dict)
    plans: Mapping[str, PlanNode] = field(default_factory=dict)
    assembles: Mapping[type[PlanOp], Assemble] = field(default_factory=dict)
    rules: Mapping[type[QOp], Rule] = field(default_factory=dict)
