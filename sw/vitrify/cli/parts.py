"""The table of an application's parts: what runs where, and why not on the core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vitrify.program import Application, HostPart
from vitrify.program.onnx_graph import operators

from .terminal import new_table, show

if TYPE_CHECKING:
    from vitrify.compiler.partition import Piece

#: Operators, and reasons, that a row lists.
_MOST_KINDS, _MOST_REASONS = 6, 3
Rows = list[dict[str, Any]]


def of_application(application: Application) -> Rows:
    """The rows for a compiled application."""
    rows: Rows = []
    for part in application.parts:
        if isinstance(part, HostPart):
            rows.append(_row("host", part.macs, _kinds(operators(part.graph)), part.why))
        else:
            rows.append(_row("core", part.macs, f"{len(part.program.layers)} matrix products", ()))
    return _with_shares(rows)


def of_pieces(pieces: Sequence[Piece]) -> Rows:
    """The rows for a model that would be cut so."""
    return _with_shares([
        _row("core" if piece.on_core else "host", piece.macs,
             _kinds(node.op_type for node in piece.nodes), piece.why)
        for piece in pieces
    ])  # fmt: skip


def _row(place: str, macs: int, kinds: str, why: Sequence[str]) -> dict[str, Any]:
    return {"where": place, "macs": macs, "operators": kinds, "why": list(why)}


def _kinds(op_types: Iterable[str]) -> str:
    counts = Counter(op_types).most_common()
    listed = [f"{name} {count}" if count > 1 else name for name, count in counts[:_MOST_KINDS]]
    rest = sum(count for _, count in counts[_MOST_KINDS:])
    return ", ".join(listed) + (f" and {rest} more" if rest else "")


def _with_shares(rows: Rows) -> Rows:
    total = sum(row["macs"] for row in rows) or 1
    return [{"part": i, **row, "share": row["macs"] / total} for i, row in enumerate(rows)]


def core_share(rows: Rows) -> float:
    """Share of the multiply-accumulates that the core does."""
    return sum(row["share"] for row in rows if row["where"] == "core")


def show_parts(rows: Rows) -> None:
    """Print the table."""
    table = new_table(box=None)
    for heading in ("part", "where", "MACs (M)", "share", "operators", "why"):
        table.add_column(heading, justify="right" if heading in ("MACs (M)", "share") else "left")
    for row in rows:
        why = row["why"][:_MOST_REASONS]
        rest = len(row["why"]) - len(why)
        table.add_row(
            str(row["part"]), row["where"], f"{row['macs'] / 1e6:.2f}",
            f"{100 * row['share']:.1f} %", row["operators"],
            "\n".join([*why, *([f"and {rest} more"] if rest else [])]),
        )
    show(table)
