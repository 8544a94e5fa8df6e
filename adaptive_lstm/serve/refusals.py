"""What a client is told when its request is refused: a status of HTTP and one sentence."""

from __future__ import annotations

from ..errors import AdaptiveLSTMError, InputError, OverloadError, StateError


class Refusal(Exception):
    """A request that is refused; ``status``: of HTTP."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def refusal(error: AdaptiveLSTMError) -> Refusal:
    """The same for an error of the package."""
    if isinstance(error, OverloadError):
        return Refusal(503, str(error))
    return Refusal(400 if isinstance(error, InputError | StateError) else 500, str(error))


def draining() -> Refusal:
    """Of a replica that is about to stop."""
    return Refusal(503, "this replica is about to stop; go on at another one, with resume")
