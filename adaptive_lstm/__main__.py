"""`python -m adaptive_lstm` is the command `adaptive-lstm`."""

from .cli import main

if __name__ == "__main__":
    main()
