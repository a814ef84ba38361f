"""A hand-written program: two patches and a class row through one LOAD and one STORE."""

from __future__ import annotations

import numpy as np

from vitrify.arch import isa
from vitrify.arch.presets import preset
from vitrify.program import InputSpec, OutputSpec, Program

ARCH = preset("nano")


def copy_program(**changes: object) -> Program:
    """A program that stores its int8 input rows as they are: 9 rows of 3*2*2 columns."""
    rows, words = 9, 2
    move = {"addr": 3, "stride": 5, "rows": rows, "words": words}
    code = b"".join(
        isa.pack(op)
        for op in (
            isa.make(isa.Opcode.LOAD, region=isa.Region.INPUT, **move),
            isa.make(isa.Opcode.STORE, region=isa.Region.OUTPUT, **move),
            isa.make(isa.Opcode.END),
        )
    )
    values: dict = {
        "model": "copy",
        "arch": ARCH,
        "image": np.frombuffer(code, np.uint8),
        "instruction_count": 3,
        "input": InputSpec(
            name="image",
            shape=(3, 4, 8),
            patch=(2, 2),
            prefix=1,
            rows=rows,
            multiplier=np.array([127.5, 100.0, 64.0]),
            offset=np.array([-0.5, 0.25, 0.0]),
            preprocess="mean=0.5,std=0.5",
        ),
        "outputs": (
            OutputSpec(
                name="rows",
                rows=rows,
                channels=12,
                bits=8,
                scale=0.5,
                zero_point=2,
                shape=(rows, 12),
            ),
        ),
        "metadata": {"note": "by hand"},
    }
    return Program(**{**values, **changes})
