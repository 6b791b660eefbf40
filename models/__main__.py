"""``python -m burnish.models fetch [NAME]...``: fill the cache while there is a network."""

from __future__ import annotations

import argparse
import sys

from burnish.models import cache_dir, load, names


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m burnish.models", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    fetch = verbs.add_parser("fetch", help="fetch the files of these models, or of all")
    fetch.add_argument("names", nargs="*", metavar="NAME")
    wanted = parser.parse_args().names or names()
    try:
        for name in wanted:
            zoo_model = load(name)
            zoo_model.inputs(1)
            zoo_model.calibration(1)
            print(f"{name}: in {cache_dir()}")
    except (KeyError, OSError, ValueError, ModuleNotFoundError) as error:
        print(f"burnish.models: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
