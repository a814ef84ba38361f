"""How long `vitrify explore` takes: 500 cores for ViT-small's shape on the kv260.

The last line is the preset of the board.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections import Counter

from bench.shapes import SHAPES
from tests.support.synthetic import vision_transformer
from vitrify.arch.presets import preset
from vitrify.explore import Design, Space, Study, explore, front
from vitrify.explore.search import measure
from vitrify.explore.space import share_of

_PART, _SHAPE = "kv260", "vit_small_shape"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--limit", type=int, default=500)
    options.add_argument("--tolerance", type=float, default=0.05)
    given = options.parse_args()
    graph = vision_transformer(**next(one for one in SHAPES if one.name == _SHAPE).shape)
    start = time.perf_counter()
    archs = Space.of(_PART).designs({}, given.limit)
    with Study(None, {}) as study:
        found = explore(
            archs, {_SHAPE: lambda _: graph}, study, jobs=given.jobs, tolerance=given.tolerance
        )
    wall = time.perf_counter() - start
    used = sum(resource.getrusage(who).ru_utime
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"{len(found)} designs: {dict(Counter(design.status for design in found))}")
    load = os.getloadavg()[0]
    print(f"{wall:.0f} s with {given.jobs} processes, {used:.0f} CPU s; load {load:.1f}")
    hand = preset(_PART)
    by_hand = Design(hand, max(share_of(hand).values()), *measure({_SHAPE: graph}, hand))
    for design in (*front(found), by_hand):
        print(f"{design.arch.name:32} {design.cycles[_SHAPE]:12,} cycles "
              f"{design.milliseconds:9.2f} ms {design.share:6.1%}")


if __name__ == "__main__":
    main()
