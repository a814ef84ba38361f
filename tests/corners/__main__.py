"""The long sweep: ``python -m tests.corners --count 200 --seed 1``; prints what fails."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import traceback
from pathlib import Path

from tests.support.corners import draw
from tests.support.lint import lint
from vitrify.rtl.emit import emit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--macs", type=int, default=8192, help="most MACs of a core")
    options = parser.parse_args()
    failed = 0
    for number in range(options.count):
        seed = options.seed + number
        arch = draw(random.Random(seed), most_macs=options.macs, most_words=1 << 20)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = lint(emit(arch, Path(folder)))
                problem = result.stderr[:2000] if result.returncode else ""
            except Exception:
                problem = traceback.format_exc()
        failed += bool(problem)
        took = time.monotonic() - begun
        print(f"seed {seed}: {'FAILED' if problem else 'ok'} {took:.1f} s", flush=True)
        if problem:
            print(arch, problem, sep="\n", flush=True)
    print(f"{options.count} architectures, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
