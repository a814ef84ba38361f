"""Every operation is in the registry, once, with all that its classes need."""

import importlib
import pkgutil

import pytest

from vitrify import ops
from vitrify.ir import OPS
from vitrify.ops.operation import Operation
from vitrify.ops.registry import ASSEMBLES, DECOMPOSITIONS, OPERATIONS, PLANS, RULES
from vitrify.quant.graph import QOp
from vitrify.quant.plan import PlanOp

FOLDERS = [m.name for m in pkgutil.iter_modules(ops.__path__) if m.ispkg]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_hands_over_one_operation(folder):
    module = importlib.import_module(f"vitrify.ops.{folder}")
    (own,) = [
        value for name, value in vars(module).items()
        if name == folder.upper() and isinstance(value, Operation)
    ]
    assert own in OPERATIONS
    assert len(OPERATIONS) == len(FOLDERS)


@pytest.mark.parametrize(("table", "name"), [
    (DECOMPOSITIONS, "decompositions"), (PLANS, "plans"), (ASSEMBLES, "assembles"),
    (RULES, "rules"),
])
def test_nothing_is_registered_twice(table, name):
    assert len(table) == sum(len(getattr(operation, name)) for operation in OPERATIONS)


def test_what_is_planned_is_canonical():
    assert PLANS.keys() | DECOMPOSITIONS.keys() <= OPS.keys()


@pytest.mark.parametrize(("base", "table"), [(PlanOp, ASSEMBLES), (QOp, RULES)])
def test_every_class_is_registered(base, table):
    folders = tuple(f"vitrify.ops.{folder}." for folder in FOLDERS)
    own = [kind for kind in below(base) if kind.__module__.startswith(folders)]
    assert set(own) == table.keys()


def below(base: type) -> set[type]:
    direct = set(base.__subclasses__())
    return direct.union(*map(below, direct))
