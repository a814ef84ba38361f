"""Weighed heads: canonical graph to integers, against the float graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.quant.graphs import DIM, Net
from tests.unit.quant.test_quantise import SPEC, ratio
from vitrify.arch.errors import UnsupportedOpError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.ir import evaluate
from vitrify.ops.attention.integer import QAttention
from vitrify.quant.calibrate import feeds
from vitrify.quant.compare import compare
from vitrify.quant.evaluate import Evaluator
from vitrify.runtime import InferenceSession

NANO = preset("nano")


class HeadNet(Net):
    """One block whose heads are weighed."""

    def weighed(
        self, heads: int, routed: int, k: int, *, balanced: bool = False, bias: float = 0.0,
        normalize: int = 0,
    ) -> ir.Model:
        """The model; ``bias`` is that of the last logit."""
        x = self.tokens()
        normal = self.norm(x, "norm")
        q, value = (self.linear(normal, DIM, name) for name in ("q", "v"))
        key = self.linear(normal, DIM, "k")
        gates = [self._gate(normal, routed, "routed", bias)]
        if balanced:
            gates.append(self._gate(normal, heads - routed, "shared"))
            gates.append(self._gate(normal, 2, "balance"))
        made = self.builder.emit(
            "BalancedHeads" if balanced else "RoutedHeads", q, key, value, *gates, name="heads",
            heads=heads, scale=0.5, k=k, normalize=normalize,
        )
        x = self.add(x, self.linear(made, DIM, "proj"), "sum")
        return self.model(self.head(self.select(self.norm(x, "last"))))

    def _gate(self, x: ir.Value, count: int, name: str, bias: float = 0.0) -> ir.Value:
        offset = 0.3 * self.normal(count)
        offset[-1] += bias
        return self.builder.emit(
            "Linear", x, 2 * self.normal(count, DIM) / np.sqrt(DIM), offset, name=name
        )


CASES = {
    "plain": {"heads": 4, "routed": 4, "k": 2},
    "some are always on": {"heads": 4, "routed": 3, "k": 2, "normalize": 1},
    "one of one": {"heads": 2, "routed": 1, "k": 1},
    "balanced": {"heads": 4, "routed": 2, "k": 1, "balanced": True},
    "balanced, one shared": {"heads": 4, "routed": 3, "k": 2, "balanced": True, "normalize": 1},
    "balanced, one routed": {"heads": 4, "routed": 1, "k": 1, "balanced": True},
}


def make(case, **more):
    net = HeadNet(3)
    model = net.weighed(**(CASES[case] | more))
    return net, model, quantise(model, net.images(), arch=NANO, preprocess=SPEC)


@pytest.mark.parametrize("case", CASES)
def test_heads_follow_the_float_graph(case):
    net, model, graph = make(case)
    found = {c.name: c for c in compare(model, graph, net.images(24), NANO)}
    op = next(op for op in graph.ops if isinstance(op, QAttention))
    assert found[op.name].sqnr > 15
    images = net.images(24)
    real = evaluate(model, feeds(model, images, {}), list(graph.outputs))
    for output, got in Evaluator(graph, NANO).outputs(images).items():
        # A row near a tie may choose otherwise.
        assert np.median([ratio(a, b) for a, b in zip(real[output], got, strict=True)]) > 25


@pytest.mark.parametrize("case", CASES)
def test_the_compiled_program_equals_the_evaluation(case):
    net, _, graph = make(case)
    program, images = compile_graph(graph, NANO), net.images(4)
    with InferenceSession(program, "golden") as golden:
        outputs = golden.run(None, {program.input.name: images})
    exact = Evaluator(graph, NANO).outputs(images)
    for got, want in zip(outputs, exact.values(), strict=True):
        assert (want.reshape(got.shape) == got).all()


def test_a_row_that_did_not_choose_a_head_has_zeros():
    net, _, graph = make("some are always on")
    op = next(op for op in graph.ops if isinstance(op, QAttention))
    gate = next(o.name for o in graph.ops if o.out == op.gated[0].logits)
    got = Evaluator(graph, NANO).run(net.images(4))
    least = np.argmin(got[gate], axis=2)
    heads = got[op.name].reshape(*least.shape, op.heads, -1)[:, :, 1:]
    idle = np.take_along_axis(heads, least[..., None, None], axis=2)
    assert (idle == 0).all()
    assert graph.tensors[op.out].dequantise(got[op.name])[..., DIM // 4 :].any()


def test_a_head_that_nobody_chose_has_the_range_of_its_values():
    _, _, graph = make("plain", bias=-99.0)
    op = next(op for op in graph.ops if isinstance(op, QAttention))
    last = slice(-DIM // 4, None)
    value, made = graph.tensors[op.v], graph.tensors[op.out]
    reach = 127 * np.broadcast_to(value.scale, DIM) + np.abs(np.broadcast_to(value.offset, DIM))
    assert np.allclose(127 * made.scale[last], reach[last])


@pytest.mark.parametrize(("shape", "message"), [
    ({"heads": 8, "routed": 6, "k": 5}, "'heads' .* weighs 5 of 6 heads by one softmax"),
    ({"heads": 8, "routed": 3, "k": 1, "balanced": True}, "weighs 5 of 5 heads by one softmax"),
])
def test_more_than_the_router_weighs(shape, message):
    net = HeadNet(3)
    model = net.weighed(**shape)
    with pytest.raises(UnsupportedOpError, match=message):
        quantise(model, net.images(), arch=NANO)
