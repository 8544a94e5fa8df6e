"""``python -m adaptive_lstm.serve``: serve streams through a saved LSTM, or through that of the demo."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
