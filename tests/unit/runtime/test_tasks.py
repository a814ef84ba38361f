"""Task numbers: as inputs of every backend, in the jobs' registers, on the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command import vitrify
from tests.unit.quant import mixtures
from vitrify.arch.errors import InputError, ProgramError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.ir import BATCH, save
from vitrify.program import Program, TaskSpec, as_tasks, registers
from vitrify.runtime import InferenceSession

SPECS = (TaskSpec(name="task", count=3),)


@pytest.fixture(autouse=True)
def beside_the_model(model, monkeypatch):
    """Where the float backend looks for it."""
    monkeypatch.chdir(model[0].parent)


@pytest.fixture(scope="module", params=[(), (1,), (BATCH,)], ids=["scalar", "one", "each"])
def model(request, tmp_path_factory):
    """A model whose task input has one of the shapes, its program, and pictures."""
    net = mixtures.MixedNet(3, task_shape=request.param)
    canonical = net.model(mixtures.tasks(net))
    path = tmp_path_factory.mktemp("tasks") / "model.onnx"
    save(canonical, path)
    program = compile_graph(quantise(canonical, net.images(), arch=preset("nano")), preset("nano"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = {"name": path.name, "sha256": digest}
    return path, dataclasses.replace(program, metadata={"source": source}), net.images(5)


def test_registers():
    tasks = np.array([[1], [2], [0], [5], [7]])
    assert registers(tasks, 1) == [1, 2, 0, 5, 7]
    assert registers(tasks, 2) == [1 | 2 << 8, 5 << 8, 7]
    assert registers(tasks[:4], 4) == [1 | 2 << 8 | 5 << 24]
    assert registers(np.array([[1, 2], [3, 4], [5, 6]]), 2) == [
        1 | 2 << 8 | 3 << 16 | 4 << 24, 5 | 6 << 8,
    ]
    assert registers(np.zeros((3, 0), np.int64), 2) == [0, 0]


def test_one_task_serves_all_images():
    assert as_tasks(SPECS, {"task": 2}, 3).tolist() == [[2]] * 3
    assert as_tasks(SPECS, {"task": [1]}, 2).tolist() == [[1]] * 2
    assert as_tasks(SPECS, {"task": [0, 1]}, 2).tolist() == [[0], [1]]
    assert as_tasks((), {}, 2).shape == (2, 0)


@pytest.mark.parametrize(("given", "message"), [
    ({}, "input 'task' is missing: a task from 0 to 2 for each image"),
    ({"task": 1.5}, "must be integers, not float64"),
    ({"task": [0, 1]}, r"has the shape \[2\]; 3 images take one task, or \[3\]"),
    ({"task": [0, 3, 1]}, "is 3; the model has the tasks 0 to 2"),
    ({"task": -1}, "is -1; the model has the tasks 0 to 2"),
])
def test_wrong_tasks(given, message):
    with pytest.raises(InputError, match=message):
        as_tasks(SPECS, given, 3)


def test_every_backend_takes_tasks(model):
    path, program, images = model
    tasks = np.array([2, 0, 1, 1, 2])
    feed = {"image": images, "task": tasks}
    with InferenceSession(program, "golden") as session:
        assert [arg.name for arg in session.get_inputs()] == ["image", "task"]
        mixed = session.run(None, feed)[0]
        for number in range(3):
            alone = session.run(None, {"image": images, "task": number})[0]
            assert (alone[tasks == number] == mixed[tasks == number]).all()
        assert not np.allclose(alone, mixed)
    exact = [InferenceSession(what, "float").run(None, feed)[0] for what in (path, program)]
    assert (exact[0] == exact[1]).all()
    # Rows near a tie may go elsewhere: these networks are small and their weights random.
    assert np.corrcoef(exact[0].ravel(), mixed.ravel())[0, 1] > 0.9


def test_a_task_that_does_not_exist(model):
    path, program, images = model
    for what, backend in ((program, "golden"), (program, "float"), (path, "float")):
        session = InferenceSession(what, backend)
        with pytest.raises(InputError, match="input 'task' is -1"):
            session.run(None, {"image": images, "task": -1})
        with pytest.raises(InputError, match="input 'task' is missing"):
            session.run(None, {"image": images})
        with pytest.raises(InputError, match="no input 'x'; its inputs are 'image', 'task'"):
            session.run(None, {"image": images, "x": 0})


@pytest.mark.slow
def test_simulated_core(model):
    _, program, images = model
    feed = {"image": images, "task": [2, 0, 1, 1, 2]}
    with InferenceSession(program, "rtl", check=True) as simulated:
        found = simulated.run(None, feed)[0]
    assert (InferenceSession(program, "golden").run(None, feed)[0] == found).all()


def test_container(model, tmp_path):
    program = dataclasses.replace(model[1], batch=2)
    program.save(tmp_path / "m.vfy")
    loaded = Program.load(tmp_path / "m.vfy")
    assert loaded.tasks == program.tasks == SPECS
    assert loaded.batch == 2
    with pytest.raises(ProgramError, match="a job of 5 images with 1 task inputs"):
        dataclasses.replace(program, batch=5)


def test_command_line(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, program, images = model
    program.save("m.vfy")
    np.save("x.npy", images)
    for given in ("1", "2,0,1,1,2", "task=1"):
        out = vitrify(capsys, "run", "m.vfy", "--input", "x.npy", "--task", given, "--json")
        numbers = np.array([int(n) for n in given.removeprefix("task=").split(",")])
        feed = {"image": images, "task": numbers}
        wanted = InferenceSession(program).run(None, feed)[0]
        assert np.allclose(json.loads(out)["outputs"]["head"], wanted)
    out = vitrify(capsys, "info", "m.vfy")
    assert "task 0 to 2" in out
    assert "2 of 5 in 1 layers" in out
    run = ("run", "m.vfy", "--input", "x.npy")
    for given, message in (
        ((), "input 'task' is missing"), (("--task", "3"), "is 3; the model has the tasks 0 to 2"),
        (("--task", "one"), "'one' is no list of task numbers"),
        (("--task", "x=1"), "has no task input 'x'; it has task"),
        (("--task", "0,1"), "5 images take one task"),
    ):
        assert message in vitrify(capsys, *run, *given, code=2)


def test_accuracy_for_a_task(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program = model[1]
    spec = dataclasses.replace(program.input, preprocess="mean=0.5,std=0.5")
    dataclasses.replace(program, input=spec).save("m.vfy")
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(f"{number}.png")
    Path("labels.csv").write_text("file,label\n" + "".join(f"{n}.png,{n}\n" for n in range(4)))
    command = (
        "accuracy", "m.vfy", "--data", ".", "--labels", "labels.csv", "--float-model",
        str(model[0]),
    )
    data = json.loads(vitrify(capsys, *command, "--task", "2", "--json"))
    assert data["task"] == 2
    assert data["images"] == 4
    assert "float_top1" in data
    assert "say with --task" in vitrify(capsys, *command, code=2)
    assert "takes one task here" in vitrify(capsys, *command, "--task", "0,1", code=2)


def test_images_that_fill_no_job(model):
    """Three images in jobs of two: the fourth is empty, and nobody sees it."""
    net = mixtures.MixedNet(3)
    canonical = net.model(mixtures.tasks(net))
    graph = quantise(canonical, net.images(), arch=preset("nano"))
    alone, pairs = (compile_graph(graph, preset("nano"), batch=batch) for batch in (1, 2))
    feed = {"image": model[2][:3], "task": [2, 0, 1]}
    sessions = [InferenceSession(program) for program in (alone, pairs)]
    one, two = (session.run(None, feed)[0] for session in sessions)
    assert (one == two).all()
    first, second = (session.statistics for session in sessions)
    assert first.macs == second.macs
    assert second.dram_read_bytes < first.dram_read_bytes
