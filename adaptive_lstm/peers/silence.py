"""Suppress the output of converters: advice and deprecations that do not concern the result.

The result is checked by its outputs, see ``verify``.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def no_warnings() -> Iterator[None]:
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
def no_output() -> Iterator[None]:
    """Drop warnings, log records, and stdout and stderr, those of native code and child processes included."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        try:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            with redirect_stdout(nowhere), redirect_stderr(nowhere), no_warnings():
                yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for where, fd in zip(kept, (1, 2), strict=True):
                os.dup2(where, fd)
                os.close(where)
