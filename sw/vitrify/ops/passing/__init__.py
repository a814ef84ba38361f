"""Tensors that are never there as a whole: what bands of them need beside their operations."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .integer import QAside, QRead
from .lower import load, lower_aside, lower_read

PASSING = Operation(rules={QRead: Rule(lower_read, ahead=load), QAside: Rule(lower_aside)})
