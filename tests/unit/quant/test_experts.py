"""Experts and tasks: canonical graph to integers, and on to the golden machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.execute import tensors
from tests.unit.quant import mixtures
from tests.unit.quant.graphs import DIM
from tests.unit.quant.test_quantise import SPEC, ratio
from vitrify.arch.errors import UnsupportedOpError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.unread import leave_out
from vitrify.frontend import canonicalise, load
from vitrify.ir import BATCH, evaluate, shape_of
from vitrify.ops.experts.integer import QExperts
from vitrify.ops.experts.usage import own_rows
from vitrify.quant.calibrate import feeds
from vitrify.quant.compare import compare
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.planner import image_of

NANO = preset("nano")
DATA = Path(__file__).parents[2] / "data"


def make(mapping: str, **options):
    net = mixtures.MixedNet(3, **options)
    output = mixtures.MAPPINGS[mapping](net)
    model, images = net.model(output), net.images()
    return net, model, output.name or "", quantise(model, images, arch=NANO, preprocess=SPEC)


def same_choices(exact: np.ndarray, integers: np.ndarray, k: int) -> np.ndarray:
    """Rows that go to the same experts; ``[N, T, E]`` both."""
    best = (np.argsort(-part, axis=2, kind="stable")[:, :, :k] for part in (exact, integers))
    first, second = (np.sort(part, axis=2) for part in best)
    return (first == second).all(axis=2)


@pytest.mark.parametrize("mapping", mixtures.MAPPINGS)
def test_every_mapping_follows_the_float_graph(mapping):
    net, model, name, graph = make(mapping)
    images = net.images(24)
    numbers = {task: np.arange(24) % count for task, count in graph.tasks.items()}
    mixed = [op for op in graph.ops if isinstance(op, QExperts)]
    scores = [graph.values[next(o.name for o in graph.ops if o.out == op.logits)] for op in mixed]
    exact = evaluate(model, feeds(model, images, numbers), [name, *scores])
    got = Evaluator(graph, NANO).run(images, tasks=numbers)
    # Rows near a tie go elsewhere; images without such a row must be as right as any others.
    right = np.ones(len(images), bool)
    for op, score in zip(mixed, scores, strict=True):
        gate = next(o.name for o in graph.ops if o.out == op.logits)
        same = same_choices(exact[score], got[gate], op.choices)
        assert same.mean() > 0.9
        right &= same.all(axis=1)
    assert right.sum() > 6
    result = Evaluator(graph, NANO).outputs(images, numbers)[name]
    assert ratio(exact[name][right], result[right]) > 22
    for gate in (op.logits for op in mixed):
        assert np.isclose(graph.tensors[gate].scale, np.log(2) / 256)


@pytest.mark.parametrize("mapping", mixtures.MAPPINGS)
@pytest.mark.parametrize("batch", [1, 2])
def test_machine_equals_evaluator(mapping, batch):
    net, _, _, graph = make(mapping)
    program = compile_graph(graph, NANO, batch=batch)
    images, numbers = net.images(batch), np.arange(1, batch + 1)
    tasks = dict.fromkeys(graph.tasks, numbers)
    fewer = leave_out(graph)
    expected = Evaluator(fewer, NANO).run(images, tasks=tasks)
    written, outputs = tensors(program, images, numbers[:, None] if tasks else None)
    for op in fewer.ops:
        made = op.written(*expected[op.name].shape[:2])
        value = expected[op.name].reshape(-1, expected[op.name].shape[2])[made]
        assert (written[op.name][made, : value.shape[1]] == value).all(), op.name
    real = Evaluator(graph, NANO).outputs(images, tasks)
    for found, exact in zip(outputs, real.values(), strict=True):
        assert (found.reshape(exact.shape) == exact.astype(np.float32)).all()


def exported(path: Path):
    """The canonical model of a fixture, and noise that fits it."""
    model = canonicalise(load(path))
    shape = [int(size) for size in shape_of(image_of(model))[1:]]
    return model, np.random.default_rng(1).normal(size=(24, *shape)).astype(np.float32)


@pytest.mark.parametrize("path", sorted(DATA.glob("mo[eh]_*.onnx")), ids=lambda path: path.stem)
def test_every_exporters_mixture(path):
    model, images = exported(path)
    graph = quantise(model, images, arch=NANO)
    # One for all: some of the models take a single number.
    tasks = {name: np.full(24, 1) for name in graph.tasks}
    program = compile_graph(graph, preset("reference"))
    numbers = np.ones((1, len(tasks)), np.int64) if tasks else None
    _, outputs = tensors(program, images[:1], numbers)
    got = Evaluator(graph, program.arch).outputs(images[:1], {n: t[:1] for n, t in tasks.items()})
    for found, exact in zip(outputs, got.values(), strict=True):
        assert (found.reshape(exact.shape) == exact.astype(np.float32)).all()
    real = evaluate(model, feeds(model, images, tasks), list(graph.outputs))
    for name, got in Evaluator(graph, NANO).outputs(images, tasks).items():
        # Images with a row near a tie may differ; weights are random, and channels few.
        pairs = zip(real[name], got, strict=True)
        assert np.median([ratio(exact, found) for exact, found in pairs]) > 18, name


def test_layers_are_compared_with_floats():
    net, model, _, graph = make("tasks")
    found = {c.name: c for c in compare(model, graph, net.images(8), NANO, tasks={"task": 1})}
    assert found["moe.gate"].sqnr > 25
    assert found["moe"].sqnr > 10


@pytest.mark.parametrize("shape", [(), (1,), (BATCH,)])
def test_tasks_of_any_shape(shape):
    _, _, _, graph = make("tasks", task_shape=shape)
    assert graph.tasks == {"task": mixtures.TASKS}


def test_experts_share_the_gain_of_their_gate():
    _, _, _, graph = make("plain")
    op = next(op for op in graph.ops if isinstance(op, QExperts))
    gate = next(o for o in graph.ops if o.out == op.logits)
    assert all((first.norm.gain == gate.norm.gain).all() for first, _ in op.experts)


def test_an_expert_that_nobody_chose_is_calibrated_with_the_rows_of_others():
    rng = np.random.default_rng(1)
    rows, scores = rng.normal(size=(1000, 4)), rng.normal(size=(1000, 3))
    scores[:, 1] = -9
    many, none, _ = own_rows(rows, scores, 1)
    assert len(many) == (scores[:, 0] > scores[:, 2]).sum()
    assert len(none) == 384
    assert np.ptp(none, axis=0).min() > 4


def test_what_experts_make_can_only_be_added():
    net = mixtures.MixedNet(1)
    x = net.tokens()
    made = net.experts(net.norm(x, "norm"), "moe")
    output = net.head(net.select(net.norm(made, "next")))
    with pytest.raises(UnsupportedOpError, match=r"'next'.*only be added to the residual stream"):
        quantise(net.model(output), net.images(), arch=NANO)


def test_a_stream_from_before_the_experts_is_refused():
    """Their sum cannot be had without the dense layer that moved behind them."""
    net = mixtures.MixedNet(1)
    x = net.tokens()
    normal = net.norm(x, "norm")
    dense = net.add(x, net.mlp(normal, "mlp"), "add")
    mixed = net.add(dense, net.experts(normal, "moe"), "sum")
    output = net.add(mixed, net.linear(net.norm(dense, "other"), DIM, "late"), "end")
    with pytest.raises(UnsupportedOpError, match="cannot keep"):
        quantise(net.model(output), net.images(), arch=NANO)
