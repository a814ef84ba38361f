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
#: Parts of what the compiler says, and what they come to.
_REASONS = {
    "no part of it that multiplies": "nothing that multiplies is left for the core",
    "ONNX Runtime cannot run it": "ONNX Runtime, which judges every part, cannot run the model",
    "branches or loops": "branches or loops",
    "random numbers": "random numbers",
    "not finite": "inputs that are not finite",
    "NaN or infinite": "results that are not finite",
    "cannot convert": "older than the compiler reads, and ONNX cannot convert it",
    "bfloat16": "tensors of bfloat16",
    "has no batch": "sizes that are not fixed, or inputs without any",
    "dynamic size": "sizes that are not fixed, or inputs without any",
    "not fixed": "sizes that are not fixed, or inputs without any",
    "empty shape": "sizes that are not fixed, or inputs without any",
    "no input": "no input, or results that depend on none",
    "does not depend on its image": "no input, or results that depend on none",
    "is not supported": "an operator, or a form of it, that the core lacks, and nothing else to do",
    "cannot run on the core": "an operator, or a form of it, that the core lacks, and nothing else "
    "to do",
    "another embedding": "an operator, or a form of it, that the core lacks, and nothing else "
    "to do",
    "fault of the compiler": "ONNX Runtime, which judges every part, computes something else than "
    "the case says",
    "cannot express": "numbers that the core's formats do not reach",
    "which no application has": "types that no application takes",
    "of the type": "types that no application takes",
}
#: Operators of a table: those with this many cases that ran, at least.
_FEWEST = 1


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
    return next((short for part, short in _REASONS.items() if part in why), "others")


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
        if sum(counts[place] for place in _COLUMNS.values()) >= _FEWEST
    ]
    return _table(("operator", "cases of floats", *_COLUMNS), rows)
