"""The packages of the extra ``onnx``, imported when something needs them."""

from importlib import import_module
from typing import Any

from ..errors import UnsupportedError


def need(name: str) -> Any:
    """A module of onnx or onnxruntime.

    Raises:
        UnsupportedError: the package is missing.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name != package:
            raise
        raise UnsupportedError(
            f"ONNX files need the package {package}, which is not installed: pip install 'adaptive-lstm[onnx]'"
        ) from error
