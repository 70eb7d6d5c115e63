"""Hostile inputs by seed: `python -m tests.hostile --count 1000`, or one again: `--kind header --seed 123 --one`.

A kind is a file in `kinds/`. Ends with 1, and the seeds, where an input crashed, hung, was read as other values, or had
a file written that is not the merge's own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile import cases, watch


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", choices=cases.names(), help="of these kinds only")
    parser.add_argument("--count", type=int, default=1000, help="cases of all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind")
    parser.add_argument(
        "--one", action="store_true", help="this one case, here, with its traceback; its files are kept"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    given = parser.parse_args()
    kinds = given.kind or cases.names()
    if given.one:
        return _one(kinds[0], given.seed)
    start = time.monotonic()
    each = -(-given.count // len(kinds))
    with tempfile.TemporaryDirectory(prefix="hostile-") as root:
        found = watch.run(Path(root), kinds, range(given.seed, given.seed + each), given.jobs)
    seconds = time.monotonic() - start
    print(f"{'kind':<12}{'read':>8}{'refused':>9}{'faults':>8}{'ms a case':>11}")
    for kind, tally in found.items():
        cost = 1000 * tally.seconds / max(1, tally.count)
        print(f"{kind:<12}{tally.read:>8}{tally.refused:>9}{len(tally.faults):>8}{cost:>11.1f}")
    count = sum(tally.count for tally in found.values())
    print(f"{count:,} cases in {seconds:.0f} s: {count / seconds:.0f} a second")
    for kind, tally in found.items():
        for seed, told in tally.faults.items():
            print(f"{kind} {seed}: {told}\n    python -m tests.hostile --kind {kind} --seed {seed} --one")
    return 1 if any(tally.faults for tally in found.values()) else 0


def _one(kind: str, seed: int) -> int:
    root = Path(tempfile.mkdtemp(prefix=f"hostile-{kind}-{seed}-"))
    print(root)
    cases.prepare(kind, root)
    print(cases.run(kind, seed, root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
