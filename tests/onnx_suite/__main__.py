"""The suite from the command line; the package's own text says how."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onnx_suite import __doc__ as usage
from onnx_suite import cases, listing, pool, themes


def main() -> int:
    parser = argparse.ArgumentParser(
        "onnx_suite", description=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*", help="shell patterns, or parts of names")
    parser.add_argument("--status", help="only those listed with one of these statuses")
    parser.add_argument("--workers", type=int, default=pool.WORKERS)
    parser.add_argument("--write", action="store_true", help="run all, and write cases.txt")
    parser.add_argument("--quiet", action="store_true", help="the counts only")
    options = parser.parse_args()
    chosen = cases.names()
    if options.status:
        listed = listing.read()
        kinds = options.status.split(",")
        chosen = [n for n in chosen if n in listed and listed[n][0] in kinds]
    if options.patterns:
        chosen = [n for n in chosen if any(_matches(n, p) for p in options.patterns)]
    start = time.perf_counter()

    def show(outcome: pool.Outcome) -> None:
        if outcome.status not in ("pass", "random") and not options.quiet:
            print(f"{outcome.status} {outcome.name}: {outcome.reason}", flush=True)

    found = pool.run_all(chosen, workers=options.workers, report=show)
    if options.write:
        if len(found) != cases.COUNT:
            parser.error("--write wants every case: leave out patterns and --status")
        listing.write(found)
    print(themes.table(found))
    counts = Counter(o.status for o in found.values())
    print(", ".join(f"{n} {status}" for status, n in counts.most_common()), end="")
    slow = sorted(found.values(), key=lambda o: -o.seconds)[:5]
    print(f" of {len(found)} in {time.perf_counter() - start:.0f} s")
    print("slowest:", ", ".join(f"{o.name} {o.seconds:.1f} s" for o in slow))
    return 0 if set(counts) <= {"pass", "random"} else 1


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatch(name, pattern) or pattern in name


if __name__ == "__main__":
    sys.exit(main())
