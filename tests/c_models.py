"""The C driver with trained models on the simulated core: ``python -m tests.c_models``.

Digits on `nano`; convolutions with attention, and the mixture of experts with both of its tasks, on
`reference`: programs as the demonstration compiles them, outputs compared with golden's.  Minutes:
the suite has small ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from demo.demo import JOBS, Job, _compile
from tests.support import c_driver
from tests.support.c_driver import CDriver
from tests.support.execute import same_results
from vitrify.cosim.transport import SimulatedTransport
from vitrify.export import Run
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.backends.golden import GoldenBackend


def compare(job: Job) -> None:
    """Golden's outputs, or an error."""
    program, shown = _compile(job), job.pictures()
    tasks = {task.name: np.array(shown.tasks) for task in program.tasks}
    regions, words, images = as_jobs(program, shown.images, tasks)
    golden, _ = GoldenBackend(program).execute(regions, words, images)
    with tempfile.TemporaryDirectory() as folder:
        library = c_driver.compiled(
            c_driver.exported(program, Run(regions, tuple(words), golden), Path(folder))
        )
        packed = np.zeros_like(regions)
        for i, image in enumerate(np.ascontiguousarray(shown.images)):
            code = library.test_pack_pixels(
                c_driver.pointer(image), 1, i % program.batch,
                c_driver.pointer(packed[i // program.batch]))
            assert code == c_driver.OK
        assert (packed == regions).all(), "packing differs from NumPy's"
        transport = SimulatedTransport(program.arch, say=print)
        core = transport.core
        try:
            driver = CDriver(library, program, transport, lambda: core.state().cycle / 1e5)
            assert driver.open(limit_ms=60_000) == c_driver.OK
            start = time.perf_counter()
            code, outputs = driver.run(packed, words)
            seconds = time.perf_counter() - start
        finally:
            transport.close()
    assert code == c_driver.OK, code
    assert same_results(program, outputs, golden), "outputs differ from golden's"
    print(f"{job.model} on {program.arch.name}: {len(words)} jobs equal golden, {seconds:.1f} s")


def main() -> None:
    """Run the models whose names contain ``--match``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="", help="part of a model's name")
    match = parser.parse_args().match
    for job in JOBS:
        if match in job.model:
            compare(job)


if __name__ == "__main__":
    main()
