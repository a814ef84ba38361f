"""Integer graph and architecture to :class:`~vitrify.program.Program`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError, InputError
from vitrify.arch.isa import TASK_BITS, TASKS, Opcode
from vitrify.codegen import image
from vitrify.codegen.alloc import PlacementError
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.memory import TensorMemory
from vitrify.codegen.portions import MOST_AHEAD, branches, rooms_ahead
from vitrify.codegen.strategy import Passing, PlacementStrategy, Separation, strategies
from vitrify.ops.registry import RULES
from vitrify.program import (
    InputSpec,
    LayerInfo,
    OutputSpec,
    Program,
    TaskSpec,
    TensorInfo,
    output_size,
)
from vitrify.quant.given import facts
from vitrify.quant.graph import OutputForm, QuantGraph

from . import bands, hazards
from .fold import fold_results
from .passing import fewest
from .sequence import early, late, schedule
from .unread import leave_out

#: Trials of one way to place tensors, each with more of them at the far end of the memory.
_MOVES = 3
#: Ways to place what is made in bands.
BANDED = tuple(PlacementStrategy(Separation.NONE, 1, scores) for scores in (1, 4))
#: What was lowered, and its outputs.
Lowered = tuple[Lowering, tuple[OutputSpec, ...]]
#: Tasks that a task number tells apart.
MAX_TASKS = 1 << TASK_BITS


def compile_graph(
    graph: QuantGraph, arch: ArchConfig, *, preprocess: str | None = None, batch: int = 1,
    ways: Iterable[PlacementStrategy] | None = None,
) -> Program:
    """Lower, place and emit; rows that no result depends on are left out.

    Parameters
    ----------
    graph : QuantGraph
        Integer graph; ops are reordered only where their data allow it.
    arch : ArchConfig
        The core to run on.
    preprocess : str, optional
        Preprocessing specification to store with the program.
    batch : int
        Images of one job, 1 to 4: their rows pass every weight together, experts included.

    ways : PlacementStrategy, ...
        Ways to place the tensors, to be tried in this order; default: from fast to small.

    Raises
    ------
    CapacityError
        If a tensor, the statistics or a dot product exceeds the architecture.
    HazardError
        If an instruction does not wait for what it needs, which would be a fault of the compiler.
    """
    if not 1 <= batch <= TASKS:
        raise InputError(f"--batch must be 1 to {TASKS} images a job, not {batch}")
    every, graph = graph, leave_out(graph)
    left_out = batch * (sum(every.macs.values()) - sum(graph.macs.values()))
    graph = _batched(fold_results(graph, arch), batch)
    for name, count in graph.tasks.items():
        if count > MAX_TASKS:
            raise CapacityError(
                f"input {name!r} chooses among {count} tasks, and a job's task number has "
                f"{TASK_BITS} bits: use at most {MAX_TASKS} tasks"
            )
    # A bus of half a word a cycle is behind with what is asked for.
    can_preload = arch.stored_weights and 2 * arch.dram_bytes > arch.depth and bool(
        branches(TensorMemory(graph, arch, PlacementStrategy(), batch))
    )
    state, outputs = _placed(
        graph, arch, batch, list(ways or strategies(MOST_AHEAD if can_preload else 0, batch))
    )
    if ways is None:
        state, outputs = _faster(state) or (state, outputs)
    pieces, preloads = state.strategy.ahead.pieces, state.preloads
    ahead = {"bytes_ahead": preloads.size} if pieces else {"experts_ahead": len(preloads)}
    code, count = state.builder.build()
    program = Program(
        model=graph.name, arch=arch, image=code, instruction_count=count,
        input=_input_spec(state, preprocess), outputs=outputs, layers=(), batch=batch,
        tasks=tuple(TaskSpec(name=name, count=count) for name, count in graph.tasks.items()),
        metadata={
            "token_memory_bytes": state.memory.peak_words * arch.depth,
            "token_memory_capacity": arch.token_bytes,
            **({} if state.strategy.row_blocks == 1 else {"row_blocks": state.strategy.row_blocks}),
            **({"image_by_image": state.strategy.alone} if state.strategy.alone else {}),
            **(ahead if len(preloads) else {}),
            **({"macs_left_out": left_out} if left_out else {}),
            **({"weights": graph.precision} if graph.precision else {}),
            **({"as_onnx": graph.as_onnx} if graph.as_onnx else {}),
            **({"quantisers": facts(graph.quantisers)} if graph.quantisers else {}),
        },
    )
    program = _with_layers(program, state)
    hazards.check(program)
    return program


def _batched(graph: QuantGraph, batch: int) -> QuantGraph:
    """The graph, scheduled, for the rows of ``batch`` images at once."""
    return replace(
        graph, ops=schedule(graph.ops),
        tensors={n: replace(t, rows=batch * t.rows) for n, t in graph.tensors.items()},
        macs={name: batch * count for name, count in graph.macs.items()},
    )


def _placed(
    graph: QuantGraph, arch: ArchConfig, batch: int, ways: Sequence[PlacementStrategy]
) -> Lowered:
    """The network in one of some ways; of one image also in bands, as few as have room."""
    try:
        return _lower(graph, arch, batch, ways)
    except PlacementError:
        small = [way for way in BANDED if way in ways]
        if batch > 1 or not small:
            raise
        def fits(passing: Passing) -> None:
            _lower(graph, arch, batch, _in_bands(small, passing), rehearsal=True)

        passing = fewest(graph, fits)
        if passing is None:
            raise
        try:
            return _lower(graph, arch, batch, _in_bands(small, passing))
        except PlacementError:  # a rehearsal found room: that has to be known
            raise
        except CapacityError:  # no field of an instruction takes what a band needs
            pass
        raise


def _in_bands(ways: Iterable[PlacementStrategy], passing: Passing) -> list[PlacementStrategy]:
    return [replace(way, passing=passing) for way in ways]


def _lower(
    graph: QuantGraph, arch: ArchConfig, batch: int, ways: Iterable[PlacementStrategy], *,
    rehearsal: bool = False,
) -> Lowered:
    """Lower every op in the fastest way that the token memory has room for; the outputs, too.

    From the second attempt on, and in a ``rehearsal``, that is found without instructions.
    """
    refusals: list[tuple[tuple[bool, int], PlacementError]] = []
    every = graph
    for strategy in ways:
        moves, graph = 0, bands.in_bands(every, strategy.passing).graph
        while True:
            ops = late(graph.ops) if strategy.late else graph.ops
            ops = early(graph) if strategy.early else ops
            ordered = replace(graph, ops=ops)
            rehearses = rehearsal or bool(refusals and not strategy.ahead.slots)
            state = Lowering(ordered, arch, strategy, batch, rehearses=rehearses)
            try:
                _lower_ops(state)
                if rehearses and not rehearsal:
                    state = Lowering(ordered, arch, strategy, batch)
                    _lower_ops(state)
            except PlacementError as error:
                refusals.append(((not strategy.ahead.slots, error.step), error))
                moves += 1
                # What is faster is no reason to do more of it image by image.
                if strategy.alone and not (strategy.turns or strategy.ahead.slots):
                    cut = _later_cut(state, error.step)
                    if cut is None:
                        break
                    strategy = replace(strategy, alone=cut)
                    continue
                far = strategy.far | state.placed.keys()
                again = error.scattered and strategy.separation == Separation.NONE
                if not again or moves > _MOVES:
                    break
                # What lies in the way goes to the far end, and whatever comes later to the near.
                strategy = replace(strategy, far=frozenset(far))
                continue
            outputs = _store_outputs(state)
            state.builder.end()
            return state, outputs
    # Of the way that came furthest, among those whose tensors are all the model's own.
    raise max(refusals, key=lambda refusal: refusal[0])[1]


def _later_cut(state: Lowering, step: int) -> int | None:
    """Where all images may go on together instead, if op number ``step`` had no room for them.

    It is the next op before which no more has to be kept of all images than before its neighbours;
    and less than now, if one image alone had no room beside that.
    """
    alone, count = state.strategy.alone, len(state.job.ops)
    words = [state.kept_words(cut) for cut in range(count + 1)]
    for cut in range(max(alone, step) + 1, count):
        if words[cut] <= min(words[cut - 1], words[cut + 1]) and (
            step >= alone or words[cut] < words[alone]
        ):
            return cut
    return None


def _faster(known: Lowering) -> Lowered | None:
    """The same with what is faster and takes more of the token memory, where that has room."""
    for way in _larger(known):
        with contextlib.suppress(PlacementError):
            return _lower(known.job, known.arch, known.job_images, [way])
    return None


def _larger(known: Lowering) -> Iterator[PlacementStrategy]:
    """Sums in turn, and pieces of layers of few rows ahead; then less.

    Where hidden layers have room for blocks of rows only, the image may have it as a whole: the
    weights of the embedding cross DRAM once then.  That is for a bus that, while it brings the next
    block, is too slow for weights besides.  Experts that are loaded ahead have the room already.
    """
    arch, strategy = known.arch, known.strategy
    ahead, larger = (), list[PlacementStrategy]()
    if strategy.row_blocks > 1:
        rows = known.rows(known.graph.input.out) / strategy.row_blocks
        if rows * arch.dram_bytes < 2 * arch.width * arch.depth:
            larger.append(replace(strategy, whole_image=True))
    elif arch.patterns and not strategy.ahead.slots:
        larger.append(replace(strategy, turns=True))
    if arch.stored_weights and not strategy.ahead.slots:
        ahead = tuple(rooms_ahead(known))
    for way in (*larger, strategy):
        yield from (replace(way, ahead=each) for each in ahead)
        if way is not strategy:
            yield way


def _lower_ops(state: Lowering) -> None:
    step = 0
    try:
        for step in _lowered(state):
            state.release_dead(step - 1)
    except CapacityError as error:
        _locate(error, state, step)
        raise


def _lowered(state: Lowering) -> Iterator[int]:
    """Lower op by op; yields the number of the one that is next."""
    for part in state.parts():
        whole = not any(
            rule.takes_image(state, op)
            for op, rule in ((op, RULES[type(op)]) for op in state.graph.ops)
            if rule.takes_image is not None
        )
        if not part.start:
            image.load(state, whole)
        yield from _lowered_part(state, part, whole)


def _lowered_part(state: Lowering, part: range, whole: bool) -> Iterator[int]:
    ops, ahead, step = state.graph.ops, state.strategy.ahead, part.start
    while step < part.stop:
        if ahead.slots > len(state.preloads) == 0 and state.is_last and step >= ahead.step:
            state.preloads.reserve(ahead)
            for later, one in enumerate(state.job.ops[step:], step):
                constants = RULES[type(one)].constants
                if constants is not None:
                    constants(state, one, later)
        op = ops[step]
        if step:
            image.load_constants(state, step)
        # What begins a part has nothing before it to be loaded meanwhile.
        for number in range(step if step == part.start else step + 1, min(step + 2, part.stop)):
            early = RULES[type(ops[number])].ahead
            if early is not None:
                early(state, ops[number], number)
        # Nothing goes before the image.
        if step or whole:
            state.preloads.fill(op)
        step += RULES[type(op)].lower(state, op, step) or 1
        yield step


def _locate(error: CapacityError, state: Lowering, step: int) -> None:
    """Note which op it is, number ``step``, that does not fit, and what that was made of."""
    graph = state.graph
    if isinstance(error, PlacementError):
        error.step = step
        uses = [name for op in graph.ops[step : step + 1] for name in (*op.sources(), op.out)]
        error.alive |= frozenset([*uses, *state.placed])
    # a copy that no node is named after belongs to what reads it
    known = (graph.sources.get(op.name) for op in graph.ops[step:])
    error.node = next(filter(None, known), "")


def _input_spec(state: Lowering, preprocess: str | None) -> InputSpec:
    source = state.graph.input
    rows, blocks = state.image_rows(source.out), image.blocks(state)
    return InputSpec(
        name=source.name, shape=source.shape, patch=source.patch, prefix=source.prefix, rows=rows,
        multiplier=np.asarray(source.multiplier, np.float64),
        offset=np.asarray(source.offset, np.float64),
        preprocess=preprocess, blocks=tuple(blocks) if len(blocks) > 1 else (),
        strides=source.strides, pads=source.pads,
    )


def _store_outputs(state: Lowering) -> tuple[OutputSpec, ...]:
    """STORE every output of every image, image by image."""
    arch, specs, offset = state.arch, [], 0
    for name, tensor_name in state.graph.outputs.items():
        tensor, rows = state.graph.tensors[tensor_name], state.image_rows(tensor_name)
        shape = (tensor.channels,) if rows == 1 else (rows, tensor.channels)
        form = state.graph.forms.get(name, OutputForm())
        spec = OutputSpec(
            name=name, rows=rows, channels=tensor.channels, bits=tensor.bits,
            scale=tensor.scale, zero_point=tensor.zero_point, offset=offset,
            factor=form.factor, shift=form.shift, dtype=form.dtype,
            shape=shape if form.shape is None else form.shape,
            start=form.start, grid=form.grid, steps=None if form.shape is None else form.steps,
        )
        offset += memmap.aligned(spec.size(arch.depth))
        specs.append(spec)
    size = output_size(specs, arch.depth)
    for number in range(state.images):
        for spec, tensor_name in zip(specs, state.graph.outputs.values(), strict=True):
            state.builder.store(
                state.placed[tensor_name], number * spec.rows, spec.rows,
                number * size + spec.offset,
            )
    return tuple(specs)


def _with_layers(program: Program, state: Lowering) -> Program:
    """Attach one :class:`LayerInfo` to each MATMUL."""
    decoded = list(program.instructions())
    numbers = [i for i, op in enumerate(decoded) if op.opcode is Opcode.MATMUL]
    layers = tuple(
        LayerInfo(
            name=m.name, instruction=number, macs=m.macs, stream_bytes=m.stream_bytes,
            tensor=TensorInfo(
                name=m.tensor, rows=m.rows, channels=m.columns, bits=m.bits,
                address=decoded[number].dst_addr, stride=decoded[number].dst_stride,
                first_row=m.row, first_channel=m.channel,
            ),
        )
        for number, m in zip(numbers, state.builder.matmuls, strict=True)
    )
    return replace(program, layers=layers)
