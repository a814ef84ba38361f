"""Tables of what ``python -m bench.backend`` found, as Markdown."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure import RESULTS

FILE = RESULTS / "backend" / "cases.json"
#: Columns of the tables, and the outcomes of a case that they count.
_COLUMNS = {
    "core": ("core", False), "core, weights inside": ("core", True),
    "with a host part": ("parts", False), "host part, weights inside": ("parts", True),
}  # fmt: skip
#: Why cases are refused, and the parts of what the compiler says that tell; the first counts.
_REASONS = {
    "nothing that multiplies is left for the core": ("no part of it that multiplies",),
    "ONNX Runtime, which judges every part, cannot run the model": ("ONNX Runtime cannot run it",),
    "branches or loops": ("branches or loops",),
    "random numbers": ("random numbers",),
    "inputs that are not finite": ("not finite",),
    "results that are not finite": ("NaN or infinite",),
    "older than the compiler reads, and ONNX cannot convert it": ("cannot convert",),
    "tensors of bfloat16": ("bfloat16",),
    "sizes that are not fixed, or inputs without any": (
        "has no batch", "dynamic size", "not fixed", "empty shape",
    ),
    "no input, or results that depend on none": ("no input", "does not depend on its image"),
    "an operator, or a form of it, that the core lacks, and nothing else to do": (
        "is not supported", "cannot run on the core", "another embedding",
    ),
    "ONNX Runtime, which judges every part, computes something else than the case says": (
        "fault of the compiler",
    ),
    "numbers that the core's formats do not reach": ("cannot express",),
    "types that no application takes": ("of the type",),
}


def on_file() -> dict[str, Any]:
    """The results of all cases."""
    return json.loads(FILE.read_text())


def renewed(found: Mapping[str, Any]) -> dict[str, Any]:
    """The results on file with those of some cases in their places.

    Raises
    ------
    ValueError
        If they are of another core.
    """
    before = on_file()
    if before["arch"] != found["arch"]:
        raise ValueError(f"the results on file are of {before['arch']}, not of {found['arch']}")
    new = {(case["kind"], case["name"]): case for case in found["cases"]}
    cases = [new.get((case["kind"], case["name"]), case) for case in before["cases"]]
    return {**found, "cases": cases}


def write(found: Mapping[str, Any]) -> None:
    """Put results on file, a line for each case."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    *rest, = ((key, value) for key, value in found.items() if key != "cases")
    lines = ",\n".join(json.dumps(case) for case in found["cases"])
    head = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in rest)
    FILE.write_text(f'{{{head}"cases": [\n{lines}\n]}}\n')


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join([_row(heads), f"|{'---|' * len(heads)}", *map(_row, rows)]) + "\n"


def _place(case: Mapping[str, Any]) -> tuple[str, bool]:
    return case["outcome"], case["weights_inside"]


def outcomes(found: Mapping[str, Any]) -> str:
    """How many cases of each kind ended how."""
    kinds = list(dict.fromkeys(case["kind"] for case in found["cases"]))
    rows = []
    for kind in (*kinds, "all"):
        mine = [case for case in found["cases"] if kind in (case["kind"], "all")]
        places = Counter(map(_place, mine))
        ends = Counter(case["outcome"] for case in mine)
        rows.append([
            kind, len(mine), *(places[place] for place in _COLUMNS.values()), ends["refused"],
            ends["wrong"] + ends["fault"], ends["no floats"],
        ])  # fmt: skip
    return _table(("cases", "", *_COLUMNS, "refused", "wrong", "no floats"), rows)


def reason(why: str) -> str:
    """The class of a refusal."""
    return next(
        (name for name, parts in _REASONS.items() if any(part in why for part in parts)), "others"
    )


def reasons(found: Mapping[str, Any]) -> str:
    """Why cases were refused."""
    counts = Counter(reason(case["why"]) for case in found["cases"] if case["outcome"] == "refused")
    return _table(("refused, because of", "cases"), counts.most_common())


def operators(found: Mapping[str, Any]) -> str:
    """Of the cases with one operator each, how many of them ran, by the operator."""
    places: dict[str, Counter[Any]] = defaultdict(Counter)
    for case in found["cases"]:
        if len(case["operators"]) == 1 and case["outcome"] != "no floats":
            places[case["operators"][0]][_place(case)] += 1
    rows = [
        [f"`{name}`", sum(counts.values()), *(counts[place] or "" for place in _COLUMNS.values())]
        for name, counts in sorted(places.items())
        if any(counts[place] for place in _COLUMNS.values())
    ]
    return _table(("operator", "cases of floats", *_COLUMNS), rows)
