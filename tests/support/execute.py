"""Every tensor that a program writes on the golden machine, by the op of the integer graph."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from vitrify.arch.isa import Instruction
from vitrify.golden.machine import Machine
from vitrify.program import (
    Program,
    UInt8,
    output_mask,
    output_size,
    pack_input,
    registers,
    unpack_output,
)

#: More than any tensor of a test has.
_ROWS = 1024
_CHANNELS = 1024


def same_results(program: Program, found: UInt8, golden: UInt8) -> bool:
    """Whether output regions ``[jobs, output_bytes]`` agree wherever they hold results."""
    return found.shape == golden.shape and not ((found ^ golden) & output_mask(program)).any()


def tensors(
    program: Program, images: npt.NDArray[np.float32], tasks: npt.NDArray[np.int64] | None = None
) -> tuple[dict[str, npt.NDArray[np.int16]], list[npt.NDArray[np.float32]]]:
    """Run one job of ``batch`` images; what each op wrote, and the outputs.

    Parameters
    ----------
    tasks : ``[N, inputs]``

    Returns
    -------
    written : ``[rows of all images, physical channels]`` by op name
    outputs : ``[N, ...]`` in the program's order
    """
    arch, machine = program.arch, Machine(program.arch)
    layers = {layer.instruction: layer for layer in program.layers}
    written: dict[str, npt.NDArray[np.int16]] = {}

    def observe(number: int, op: Instruction, value: npt.NDArray[np.integer]) -> None:
        layer = layers[number]
        name = re.sub(r"\.(values|weights|zeros)\[.*", "", layer.name)
        rows = layer.tensor.first_row + np.arange(len(value))
        if op.expert_rows:
            if not op.dst_list:
                return
            name = name.removesuffix(".fc2")
            listed = slice(op.dst_list_base, op.dst_list_base + len(value))
            rows = layer.tensor.first_row + machine.index[listed]
        whole = written.setdefault(name, np.zeros((_ROWS, _CHANNELS), np.int16))
        first = layer.tensor.first_channel
        whole[rows[:, None], np.arange(first, first + value.shape[1])] = value

    regions = pack_input(arch, program.input, images)
    assert len(regions) == program.batch
    numbers = np.zeros((len(images), 0), np.int64) if tasks is None else tasks
    result = machine.run(
        program.image, program.instruction_count, regions.reshape(-1), program.output_bytes,
        observe, *registers(numbers, program.batch),
    ).reshape(program.batch, -1)
    assert result.shape[1] == output_size(program.outputs, arch.depth)
    return written, [unpack_output(arch, spec, result) for spec in program.outputs]
