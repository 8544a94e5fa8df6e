"""How a server serves."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..codec import brief, is_number, is_whole
from ..errors import InputError
from ..types.states import MOST_ROWS

LONGEST = 86_400.0  # seconds


@dataclass(frozen=True)
class ServeOptions:
    """How a server serves.

    ``name``: of the model in the paths, ``/v2/models/NAME/infer``: letters, digits, ``.``, ``_`` and ``-``.
    ``streams``: that may be open at once.
    ``streams_per_client``: of them, for one client; None: all.
    ``backlog``: frames of a stream that may wait, and that a message may hold.
    ``max_batch``: streams that a tick advances at most; None: all that have a frame.
    ``interval``: seconds for which frames are gathered before a tick.
    ``max_bytes``: of a request's body or a WebSocket message.
    ``idle_timeout``: seconds after which a stream is closed that brings no frame and takes no result.
    ``checkpoint``: seconds between two snapshots of a stream that are put into the store.
    ``client_header``: names the header that tells clients apart, as a proxy in front sets it; None: by their address.

    Raises:
        InputError: an option out of range.
    """

    name: str = "lstm"
    streams: int = 512
    streams_per_client: int | None = 256
    backlog: int = 512
    max_batch: int | None = None
    interval: float = 0.005
    max_bytes: int = 2**20
    idle_timeout: float = 60.0
    checkpoint: float = 5.0
    client_header: str | None = None

    def __post_init__(self) -> None:
        if not _matches(r"[A-Za-z0-9._-]{1,100}", self.name):
            raise InputError(f"name: got {brief(self.name)}, expected letters, digits, '.', '_' and '-', at most 100")
        whole = {"streams": MOST_ROWS, "streams_per_client": MOST_ROWS, "backlog": MOST_ROWS, "max_batch": MOST_ROWS}
        for name, most in (whole | {"max_bytes": 2**30}).items():
            value = getattr(self, name)
            if value is None and name in ("streams_per_client", "max_batch"):
                continue
            if not (is_whole(value) and 1 <= value <= most):
                raise InputError(f"{name}: got {brief(value)}, expected a whole number, 1 to {most:,}")
        for name in ("interval", "idle_timeout", "checkpoint"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= LONGEST and (value > 0 or name == "interval")):
                raise InputError(f"{name}: got {brief(value)}, expected seconds, above 0 and at most {LONGEST:,.0f}")
        header = self.client_header
        if header is not None and not _matches(r"[A-Za-z0-9-]{1,100}", header):
            raise InputError(f"client_header: got {brief(header)}, expected the name of a header, or None")


def _matches(pattern: str, value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None
