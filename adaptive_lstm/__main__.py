"""`python -m adaptive_lstm` is the command `adaptive-lstm`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
