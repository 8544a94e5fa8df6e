"""What may be raised: an exception of the package, or the one that torch raises for the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adaptive_lstm.errors import AdaptiveLSTMError

from ..target import Fault


def raised(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What a call gives, or raises."""
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 (the point of it)
        return None, error


def must_be_ours(what: str, error: Exception, theirs: Exception | None = None) -> None:
    """Raise ``Fault`` unless an exception is the package's, or of the type that torch raises."""
    if not isinstance(error, AdaptiveLSTMError) and type(error) is not type(theirs):
        beside = "" if theirs is None else f" (torch: {type(theirs).__name__})"
        raise Fault(f"{what}: raised a foreign {type(error).__name__}{beside}\n{error}") from error
