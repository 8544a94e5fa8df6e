"""Keeping converters quiet: they print advice and deprecations that say nothing about what comes out.

What they make is checked by its output, see ``checked``.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and log records inside the block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def silent() -> Iterator[None]:
    """As ``quiet``, and what goes to stdout and stderr, from native code and child processes too, is dropped."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        try:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            with redirect_stdout(nowhere), redirect_stderr(nowhere), quiet():
                yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for where, fd in zip(kept, (1, 2), strict=True):
                os.dup2(where, fd)
                os.close(where)
