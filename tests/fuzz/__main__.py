"""``python -m tests.fuzz KIND …``: one of the fuzzers; ``KIND --help`` has its options."""

from __future__ import annotations

import importlib
import sys

#: Fuzzers by name: modules with ``main(arguments)``.
FUZZERS = {
    "graphs": "tests.fuzz.graphs",
    "inputs": "tests.fuzz.inputs",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in FUZZERS:
        print(f"usage: python -m tests.fuzz {{{','.join(FUZZERS)}}} …", file=sys.stderr)
        return 2
    return importlib.import_module(FUZZERS[arguments[0]]).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
