"""Files that another process truncates while they are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from adaptive_lstm import files
from adaptive_lstm.errors import AdaptiveLSTMError


def cut_while_read(path: Path, length: int, read: Callable[[], object]) -> object:
    """What ``read`` returns, or raises of the package, if the file is cut to a length once its sizes have been read."""
    original = files.require_memory

    def cut(size: int, name: object) -> None:
        original(size, name)
        if path.stat().st_size > length:
            os.truncate(path, length)

    with mock.patch.object(files, "require_memory", cut):
        try:
            return read()
        except AdaptiveLSTMError as error:
            return error
