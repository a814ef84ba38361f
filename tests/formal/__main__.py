"""Every proof to its full depth, then every fault: ``python -m tests.formal [NAME ...]``."""

from __future__ import annotations

import argparse
import time

from tests.formal.proofs import PROOFS
from tests.formal.prove import RefutedError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PROOFS)}; default: all")
    failed = 0
    for name in parser.parse_args().names or PROOFS:
        proof = PROOFS[name]
        begun = time.monotonic()
        try:
            proof.prove(proof.full)
            verdict = "holds"
        except RefutedError as found:
            failed, verdict = failed + 1, f"FAILS\n{found}"
        print(f"{name}: {verdict} ({time.monotonic() - begun:.0f} s)", flush=True)
        for old, new in proof.faults:
            try:
                proof.prove(proof.full, (old, new))
                failed, verdict = failed + 1, "NOT FOUND"
            except RefutedError:
                verdict = "found"
            print(f"  fault {verdict}: {new}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
