"""What the router leaves behind: queues of rows by expert, and the instructions they complete."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats, isa, memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Instruction, Opcode

from .memory import Index, TokenMemory
from .numerics import AnyInt, IntArray
from .ops import routing


class Experts:
    """Queues of the last ROUTEs and the gate weights beside the row-index memory ``index``."""

    def __init__(self, arch: ArchConfig, index: Index) -> None:
        self._arch, self._index = arch, index
        #: Gate weight, and whether the row's first expert has it, of every row-index entry.
        self.gates = np.zeros((len(index), 2), np.int64)
        #: First entry of every expert's queue, and its length.
        self.start = np.zeros(formats.MAX_EXPERTS, np.int64)
        self.count = np.zeros(formats.MAX_EXPERTS, np.int64)
        #: Rows in the queues, and how many more there is room for.
        self._rows = self._room = 0

    def route(self, op: Instruction, tokens: TokenMemory) -> None:
        """Execute a ROUTE."""
        size = memmap.queue_entries(op.rows, op.choices, op.experts, op.room)
        if op.joins and op.rows > self._room:
            raise ProgramError(f"ROUTE joins {op.rows} rows where there is room for {self._room}")
        if not op.joins and op.base + size > len(self._index):
            raise ProgramError(f"ROUTE needs {size} row-index entries from {op.base} on")
        rows, words = np.arange(op.rows), np.arange(memmap.words(self._arch, op.experts))
        logits = tokens.read16(op.src_addr + rows[:, None] * op.src_stride + words, op.experts)
        found = routing.queues(
            *routing.gate(logits, op.choices, normalise=bool(op.normalise)), op.experts
        )
        if op.joins:
            self._room -= op.rows
        else:
            self._rows, self._room, self.count[:] = 0, op.room, 0
            room = op.room * np.arange(op.experts)
            self.start[: op.experts] = op.base + found.start + room
        experts = np.repeat(np.arange(op.experts), found.count)
        behind = (self.start + self.count)[experts]
        entries = behind + np.arange(len(experts)) - found.start[experts]
        self._index[entries] = self._rows + found.row
        self.gates[entries] = np.stack([found.weight, found.first], axis=1)
        self.count[: op.experts] += found.count
        self._rows += op.rows

    def resolve(self, op: Instruction, task: int) -> Instruction:
        """The instruction with what only the job and the last ROUTE know.

        Its DRAM offset includes the task's; with ``expert_rows`` its rows and lists are those of
        the queue (zero rows: it is skipped).
        """
        if not op.values.get("task_stride") and not op.values.get("expert_rows"):
            return op
        values = dict(op.values)
        if values.get("task_stride"):
            number = task >> (op.task_source * isa.TASK_BITS) & ((1 << isa.TASK_BITS) - 1)
            name = "stream_offset" if op.opcode is Opcode.MATMUL else "offset"
            values[name] += number * op.task_stride * self._arch.depth
        if values.get("expert_rows"):
            values["rows"] = max(0, min(op.rows, int(self.count[op.expert]) - op.expert_first))
            base = int(self.start[op.expert]) + op.expert_first
            values["src_list_base"] = values["dst_list_base"] = base
        return Instruction(op.opcode, values)

    def scale(self, op: Instruction, multiplier: AnyInt | int) -> AnyInt | int:
        """The multiplier of a MATMUL, with the gate weight of each row in it if it has one."""
        return routing.scale(multiplier, self._entries(op)[:, 0]) if op.gate else multiplier

    def add_addresses(self, op: Instruction, address: IntArray) -> IntArray:
        """What an ADD16 with gates that writes to ``address [rows, words]`` adds to."""
        return address + self._entries(op)[:, 1:] * (op.add_addr - op.dst_addr)

    def _entries(self, op: Instruction) -> IntArray:
        return self.gates[op.dst_list_base : op.dst_list_base + op.rows]
