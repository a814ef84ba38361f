"""Which parts of a model run on the core, and which on the host.

Every node starts on the core.  A part of the core that the compiler refuses loses the node that it
names to the host, and is tried again: refusals at the end, at the beginning and in the middle are
all the same.  Nodes of one kind of place with the same number of changes of place before them are
one part, so that parts follow each other.  Afterwards parts of the core that are not worth their
transfers go to the host, too, and what makes a tensor smaller moves to where it saves a transfer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError, ModelError, UnsupportedOpError
from vitrify.arch.formats import MAX_DEPTH
from vitrify.codegen.strategy import Separation, strategies
from vitrify.frontend import canonicalise, known_by_bodies
from vitrify.ir import shape_of
from vitrify.quant.planner import image_of

from .compile import compile_graph
from .cut import CutError, Source, core_model, source_of, tensors_of
from .quantise import plan_of, quantise

#: Multiply-accumulates a second of a small host, numbers a second that it converts to the core's
#: or back, and seconds that starting a job takes: what decides whether a part of the core pays.
HOST_MACS = 4e9
CONVERTED = 1e8
JOB_SECONDS = 2e-4
#: Trials after which whatever is still refused goes to the host as a whole.
MOST_TRIALS = 150
#: Images that a trial is calibrated with.
_NOISE_IMAGES = 2

#: Numbers of an image that several tensors of different widths make, for one of theirs.
MOST_PADDING = 2
#: Part of the multiplications that may leave the core so that a part reads one tensor.  A choice
#: between what was seen: a condition's first layer is less than 1 %, and all up to where it joins
#: the stream more than half; then the embedding of the image alone moves.
MOST_MOVED = 0.25
#: Part of the multiplications that may leave the core with a node that does not fit.
LITTLE = 0.01

Check = Callable[[ir.Model], object]


@dataclass(frozen=True)
class Piece:
    """Nodes that run one after another in one place.

    Members
    -------
    on_core : the place
    nodes : in the order of the model
    reads, results : tensors that it takes from others, and that others take
    why : of the host, why not on the core: a sentence for each node that was refused
    macs : multiply-accumulates of an image
    """

    on_core: bool
    nodes: tuple[ir.Node, ...]
    reads: tuple[str, ...]
    results: tuple[str, ...]
    macs: int
    why: tuple[str, ...] = ()


@dataclass
class _Search:
    source: Source
    check: Check
    #: Nodes of the host, with a sentence for those that were refused.
    host: dict[ir.Node, str] = field(default_factory=dict)
    #: Names of nodes, and what was moved so that they begin a program.
    cuts: dict[str, list[ir.Node]] = field(default_factory=dict)
    good: set[frozenset[ir.Node]] = field(default_factory=set)
    trials: int = 0

    def pieces(self) -> list[Piece]:
        """The parts, in order."""
        levels: dict[ir.Node, int] = {}
        for node in self.source.model.graph:
            place = node not in self.host
            level = int(place)
            for before in node.predecessors():
                level = max(level, levels[before] + ((before not in self.host) != place))
            levels[node] = level
        found = []
        for level in range(max(levels.values(), default=-1) + 1):
            nodes = tuple(node for node in levels if levels[node] == level)
            if nodes:
                reads, results = tensors_of(nodes)
                found.append(Piece(
                    bool(level % 2), nodes, tuple(reads), tuple(results),
                    sum(map(self.source.macs, nodes)),
                    tuple(dict.fromkeys(why for n in nodes if (why := self.host.get(n)))),
                ))  # fmt: skip
        return found

    def to_host(self, nodes: Iterable[ir.Node], why: str = "") -> None:
        """Move nodes."""
        for node in nodes:
            self.host.setdefault(node, why)
            why = ""

    def settle(self) -> None:
        """Move nodes until every part of the core is accepted."""
        while True:
            for piece in self.pieces():
                if piece.on_core and frozenset(piece.nodes) not in self.good:
                    if not piece.macs:
                        self.to_host(piece.nodes)
                        break
                    if self._refused(piece):
                        break
                    self.good.add(frozenset(piece.nodes))
            else:
                return

    def _refused(self, piece: Piece) -> bool:
        """Whether something of a part had to move."""
        blamed = self._unfit_boundary(piece)
        if blamed:
            self.to_host(blamed)
            return True
        self.trials += 1
        try:
            self.check(core_model(self.source, piece.reads, piece.results))
        except ModelError as error:
            name = error.node if isinstance(error, UnsupportedOpError) else ""
            named = self._named(name, piece)
            blamed = named and (self._before(named[0], piece) or named)
            # without the way out, which is taken
            why = str(error).partition("; ")[0].rstrip(".")
        except CapacityError as error:
            named = self._named(error.node, piece)
            blamed = named and self._where_to_cut(named[0], piece)
            says = "does not fit"
            if blamed != named:
                ends = piece.nodes.index(named[0]) < piece.nodes.index(blamed[0])
                says = "ends its program, because it does not fit with what is behind it" if ends \
                    else "begins another program, because it does not fit behind what is before it"
            why = f"Node {error.node!r} {says}: " + re.sub("[:;] [^:;]*$", "", str(error))
            if blamed == named:
                # what was moved for its sake was moved in vain
                self.host.update(dict.fromkeys(self.cuts.pop(error.node, ()), ""))
            else:
                self.cuts.setdefault(error.node, []).extend(blamed)
        else:
            return False
        if self.trials > MOST_TRIALS:
            blamed = list(piece.nodes)
        # what puts the image of several tensors together
        self.to_host(blamed or self._to_one_tensor(piece) or piece.nodes, why)
        return True

    @staticmethod
    def _named(name: str, piece: Piece) -> list[ir.Node]:
        return [node for node in piece.nodes if name and node.name == name][:1]

    def _where_to_cut(self, node: ir.Node, piece: Piece) -> list[ir.Node]:
        """What moves so that there is room for ``node``, or need not be.

        It moves itself if that costs the core little; else the nearest before it that multiplies
        nothing, whose result then comes from DRAM block by block, or the nearest behind it.
        """
        if self.source.macs(node) <= LITTLE * piece.macs:
            return [node]
        for next_to in (ir.Node.predecessors, ir.Node.successors):
            unseen, found = {*piece.nodes} - {node}, [node]
            for each in found:
                for other in next_to(each):
                    if other not in unseen:
                        continue
                    if not self.source.macs(other):
                        return [other]
                    unseen.remove(other)
                    found.append(other)
        return [node]

    @staticmethod
    def _to_one_tensor(piece: Piece) -> list[ir.Node]:
        """The first nodes of a part, up to where all others read one tensor only."""
        last: dict[str, int] = {}
        for place, node in enumerate(piece.nodes):
            last.update(dict.fromkeys(_activations(node), place))
        alive = set(piece.reads)
        for place, node in enumerate(piece.nodes[:-1]):
            alive |= set(_names(node.outputs))
            alive = {name for name in alive if last.get(name, -1) > place}
            if len(alive) == 1:
                return list(piece.nodes[: place + 1])
        return []

    def _before(self, node: ir.Node, piece: Piece) -> list[ir.Node]:
        """What is before ``node`` in its part, if nothing of that multiplies.

        It may be what does not fit: the core has functions of tokens, say, and none of the image.
        """
        inside, found, left = {*piece.nodes}, set[ir.Node](), [node]
        while left:
            for before in left.pop().predecessors():
                if before in inside and before not in found:
                    found.add(before)
                    left.append(before)
        return [] if any(map(self.source.macs, found)) else [n for n in piece.nodes if n in found]

    def _unfit_boundary(self, piece: Piece) -> list[ir.Node]:
        """Nodes that have to move for a part to have one image in and batches of results out."""
        source = self.source
        for node in piece.nodes:
            # of the model's own outputs, the compiler says it better
            inner = {value.name for value in node.outputs if not value.is_graph_output()}
            if any(name in inner and not source.holds_images(name) for name in piece.results):
                return [node]
        main = max(piece.reads, key=source.size)
        kind = source.arrays[main][0]
        held = list(filter(source.holds_images, piece.reads))
        # what has fewer channels than others, pixels say, becomes wider before it comes
        width = max(map(source.channels, held), default=0)
        padded = source.padding(held) > MOST_PADDING
        for name in piece.reads:
            fits = name in held and not (padded and source.channels(name) < width)
            # an embedding of its pixels sums over all channels
            fits = fits and source.channels(name) <= MAX_DEPTH
            floats = kind.kind == "f" or (kind.kind == "u" and len(piece.reads) == 1)
            if not (fits and floats and source.arrays[name][0] == kind):
                readers = [node for node in piece.nodes if name in _names(node.inputs)]
                first = self._to_one_tensor(piece)
                moved = sum(map(source.macs, first))
                return first if first and moved <= MOST_MOVED * piece.macs else readers
        return []

    def drop_what_does_not_pay(self) -> None:
        """Give parts of the core to the host, all but the largest, whose work is not worth it."""
        pieces = [piece for piece in self.pieces() if piece.on_core]
        largest = max(pieces, key=lambda piece: piece.macs, default=None)
        for piece in pieces:
            moved = sum(map(self.source.size, (*piece.reads, *piece.results)))
            cost = JOB_SECONDS + moved / CONVERTED
            if piece is not largest and piece.macs / HOST_MACS < cost:
                self.to_host(piece.nodes, (
                    f"The {piece.macs / 1e6:.3g} M multiplications behind "
                    f"{piece.nodes[0].name!r} are not worth a transfer to the core and back"
                ))  # fmt: skip

    def save_transfers(self) -> None:
        """Move nodes that multiply nothing from the edges of parts, where that saves transfers."""
        while (node := next(self._better_on_host(), None)) is not None:
            self.to_host([node])

    def _better_on_host(self) -> Iterator[ir.Node]:
        for piece in self.pieces():
            for node in piece.nodes if piece.on_core and len(piece.nodes) > 1 else ():
                first = all(name in piece.reads for name in _activations(node))
                last = all(use.node in self.host for v in node.outputs for use in v.uses())
                if self.source.macs(node) or not (first or last):
                    continue
                left = [other for other in piece.nodes if other is not node]
                saved = self._transfers(piece.nodes) - self._transfers(left)
                # what the host makes of pixels need not come to the core to be changed first
                pixels = first and all(self.source.is_inner_image(n) for n in _activations(node))
                if saved > 0 or (saved == 0 and pixels):
                    yield node

    def _transfers(self, nodes: Iterable[ir.Node]) -> int:
        reads, results = tensors_of(nodes)
        return sum(map(self.source.size, (*reads, *results)))


def cut(model: ir.Model, check: Check | None = None) -> tuple[Source, list[Piece]]:
    """What is known of ``model``, and its parts as :func:`partition` finds them.

    What the host would have of operators that are known by what ONNX says that they compute becomes
    that, and the model is cut again.
    """
    source = source_of(model)
    closed = known_by_bodies(source.model)
    try:
        pieces = partition(source, check)
    except CutError:
        if not closed:
            raise
    else:
        on_host = {node for piece in pieces if not piece.on_core for node in piece.nodes}
        if on_host.isdisjoint(closed):
            return source, pieces
    source = source_of(model, bodies=True)
    return source, partition(source, check)


def partition(source: Source, check: Check | None = None) -> list[Piece]:
    """The parts of a model, in the order in which they run.

    Parameters
    ----------
    source : the model
    check : raises ``UnsupportedOpError`` or ``CapacityError``, naming a node, for a model that the
        core cannot run; by default the compiler as far as it goes without images

    Raises
    ------
    CutError
        If nothing that multiplies is left for the core, or a part reads what has no batch.
    """
    search = _Search(source, check or plan)
    search.to_host(_periodic(source))
    search.settle()
    search.drop_what_does_not_pay()
    search.settle()
    search.save_transfers()
    search.settle()
    pieces = search.pieces()
    if not any(piece.on_core for piece in pieces):
        raise CutError("no part of it that multiplies can run on the core")
    for name in (name for piece in pieces for name in piece.reads):
        if not source.has_batch(name):
            raise CutError(f"{name!r}, which goes from one part to another, has no batch")
    return pieces


def _periodic(source: Source) -> Iterator[ir.Node]:
    """Sines and cosines of inputs, and what is before them: times, and phases by hundreds.

    The 8 bits in which an input comes to the core say little of the angle.
    """
    plain: dict[ir.Node, list[ir.Node]] = {}
    for node in source.model.graph:
        before = [*node.predecessors()]
        if not source.macs(node) and all(other in plain for other in before):
            plain[node] = [*dict.fromkeys(n for other in before for n in plain[other]), node]
            if node.op_type in ("Sin", "Cos"):
                yield from plain[node]


def plan(model: ir.Model) -> ir.Model:
    """Compile as far as it goes without images: the canonical graph.

    Raises
    ------
    UnsupportedOpError
        Names a node that has no place on the core.
    """
    canonical = canonicalise(model)
    plan_of(canonical)
    return canonical


def placed(model: ir.Model, *, arch: ArchConfig, batch: int = 1) -> None:
    """Compile the whole way, with noise for images: what a core has room for depends on no values.

    Of the ways to place tensors only those that keep nothing apart for speed: what has room in
    another has room in these.

    Raises
    ------
    UnsupportedOpError, CapacityError
        Name a node that has no place on the core.
    """
    canonical = plan(model)
    size = [int(side) for side in shape_of(image_of(canonical))[1:]]
    noise = np.random.default_rng(0).random((_NOISE_IMAGES, *size), np.float32)
    ways = strategies(0, batch)
    small = [way for way in ways if way.separation == Separation.NONE or way.alone]
    compile_graph(quantise(canonical, noise, arch=arch), arch, batch=batch, ways=small)


def _names(values: Iterable[ir.Value | None]) -> list[str]:
    return [value.name or "" for value in values if value is not None]


def _activations(node: ir.Node) -> list[str]:
    return [v.name or "" for v in node.inputs if v is not None and not v.is_initializer()]

