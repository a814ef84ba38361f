"""Threads on one session, sessions on one core: every answer is that of a session alone.

``pytest tests/unit/runtime/test_sharing.py --runs 100`` for the long version.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.support.boards import small_program
from tests.support.synthetic import vision_transformer
from vitrify.arch.errors import BackendError, InputError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.cosim.transport import SimulatedTransport
from vitrify.golden.machine import Machine
from vitrify.runtime import InferenceSession
from vitrify.runtime.backends import golden
from vitrify.runtime.backends.board import BoardBackend

ARCH = preset("nano")
PROGRAM, FEED, GOLDEN = small_program(ARCH)
NAME = PROGRAM.input.name
THREADS = 8
RUNS = int(os.environ.get("VITRIFY_RUNS", "3"))
#: Of the simulated core, which is slower.
SLOW_RUNS = int(os.environ.get("VITRIFY_RUNS", "1"))
RNG = np.random.default_rng(7)
IMAGES = [
    RNG.normal(size=(1 + i % 2, *PROGRAM.input.shape)).astype(np.float32)
    for i in range(2 * THREADS)
]


def agrees(session, runs=RUNS):
    """Every thread's answers, while all of them run, are those of one thread alone."""
    alone = InferenceSession(PROGRAM)
    expected = [alone.run(None, {NAME: images})[0] for images in IMAGES]
    start = threading.Barrier(THREADS)

    def work(thread):
        start.wait()
        for run in range(runs):
            case = (2 * thread + run) % len(IMAGES)
            found = session.run(None, {NAME: IMAGES[case]})[0]
            assert np.array_equal(found, expected[case]), (thread, run)
            assert session.statistics is not None

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


def test_threads_on_golden():
    agrees(InferenceSession(PROGRAM))


@pytest.mark.slow
def test_threads_on_rtl():
    agrees(InferenceSession(PROGRAM, "rtl"), runs=SLOW_RUNS)


@pytest.mark.slow
def test_threads_on_a_board():
    with InferenceSession(PROGRAM, "board:simulation") as session:
        agrees(session, runs=SLOW_RUNS)


@pytest.mark.slow
def test_sessions_on_one_core():
    """A, B, A: each finds that the other was there, and uploads what differs."""
    other = compile_graph(vision_transformer(seed=5), ARCH)
    shape = other.input.shape
    feed = {other.input.name: np.random.default_rng(2).normal(size=(3, *shape)).astype(np.float32)}
    second = InferenceSession(other).run(None, feed)[0]
    transport = SimulatedTransport(ARCH)
    a, b = BoardBackend(PROGRAM, transport), BoardBackend(other, transport)

    def run(backend, given):
        (images,) = given.values()
        return backend.run([backend.outputs[0].name], images, {})[0]

    for backend, given, expected, uploads in (
        (a, FEED, GOLDEN, True), (a, FEED, GOLDEN, False), (b, feed, second, True),
        (a, FEED, GOLDEN, True), (b, feed, second, True), (b, feed, second, False),
    ):
        before = backend.driver.uploaded
        assert np.array_equal(run(backend, given), expected)
        assert (backend.driver.uploaded > before) == uploads
    # Both at once.
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(run, *job) for job in ((a, FEED), (b, feed)) * 3]
        for job, expected in zip(jobs, (GOLDEN, second) * 3, strict=True):
            assert np.array_equal(job.result(), expected)
    transport.close()


def test_a_run_inside_a_run():
    """Progress of a run that starts another: each has a machine of its own."""
    found = []

    def progress(done, total):
        if not found and done == total // 2:
            found.append(None)
            found[0] = session.run(None, FEED)[0]

    session = InferenceSession(PROGRAM, progress=progress)
    assert np.array_equal(session.run(None, FEED)[0], GOLDEN)
    assert np.array_equal(found[0], GOLDEN)


def test_jobs_of_a_run_side_by_side(monkeypatch):
    """As many as BLAS may have threads, each of which is then alone in BLAS."""
    limited = []

    class Blas:
        def info(self):
            return [{"num_threads": 3}]

        def limit(self, *, limits: int):
            return contextlib.nullcontext(limited.append(limits))

    images = np.concatenate(IMAGES)[:9]
    session = InferenceSession(PROGRAM)
    alone = np.concatenate([session.run(None, {NAME: image[None]})[0] for image in images])
    monkeypatch.setattr(golden, "_blas", Blas)
    threads, steps = set(), []
    together = threading.Barrier(3, timeout=60)

    def progress(done, total):
        steps.append((done, total))
        threads.add(threading.get_ident())

    run = Machine.run

    def run_together(*arguments):
        together.wait()
        return run(*arguments)

    monkeypatch.setattr(Machine, "run", run_together)
    session = InferenceSession(PROGRAM, progress=progress)
    (found,) = session.run(None, {NAME: images})
    assert np.array_equal(found, alone)
    assert limited == [1]
    total = len(images) * len(PROGRAM.layers)
    assert steps == [(i + 1, total) for i in range(total)]
    assert len(threads) == 3


@pytest.mark.slow
def test_a_run_inside_a_run_on_a_board():
    with InferenceSession(
        PROGRAM, "board:simulation", progress=lambda *_: session.run(None, FEED)
    ) as session, pytest.raises(BackendError, match="a run is in progress"):
        session.run(None, FEED)


def test_a_closed_session():
    session = InferenceSession(PROGRAM)
    session.close()
    with pytest.raises(InputError, match="the session is closed"):
        session.run(None, FEED)
