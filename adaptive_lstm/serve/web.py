"""What the routes have in common: who asks, bodies of bounded size, and refusals as KServe words them."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from ..errors import AdaptiveLSTMError
from .refusals import Refusal, refusal
from .sequences import Key
from .service import Service, log
from .tensors import sequence_name

UPLOAD = 30.0  # seconds that a body may take
READ_AWAY = 8  # times the limit, so that clients that are still sending hear why they are refused
LONGEST_CLIENT = 200  # characters that tell a client


def service_of(connection: HTTPConnection) -> Service:
    """The service of the application."""
    service: Service = connection.app.state.service
    return service


def key_of(connection: HTTPConnection, name: object) -> Key:
    """Whose sequence a name means. Raises ``InputError``."""
    header = service_of(connection).options.client_header
    told = None if header is None else connection.headers.get(header)
    address = connection.client.host if connection.client is not None else ""
    return Key((told or address)[:LONGEST_CLIENT], sequence_name(name))


def require_model(connection: HTTPConnection) -> None:
    """Raise ``Refusal`` if the path names another model or version."""
    name, version = connection.path_params["name"], connection.path_params.get("version", "1")
    own = service_of(connection).options.name
    if name != own or version != "1":
        raise Refusal(404, f"got model {name:.50}, version {version:.20}; expected {own}, version 1")


async def body_of(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        Refusal: it is longer than that, takes too long, or is compressed.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "got a compressed body, expected one as it is")
    told = request.headers.get("content-length", "0")
    if len(told) > 12 or not told.isdecimal() or int(told) > READ_AWAY * most:
        raise _too_long(most)

    async def whole() -> bytes:
        parts, size = list[bytes](), 0
        async for part in request.stream():
            size += len(part)
            if size > READ_AWAY * most:
                break
            if size > most:
                parts.clear()
            else:
                parts.append(part)
        if size > most:
            raise _too_long(most)
        return b"".join(parts)

    try:
        return await asyncio.wait_for(whole(), UPLOAD)
    except ClientDisconnect:
        raise Refusal(400, "the client left before its body had come") from None
    except asyncio.TimeoutError:
        raise Refusal(408, f"the body did not come within {UPLOAD:.0f} seconds") from None


def _too_long(most: int) -> Refusal:
    return Refusal(413, f"got a body of more than {most:,} bytes, which is the limit; send it in parts")


def answer(service: Service, error: Exception) -> Response:
    """The reply to a request that was refused."""
    if isinstance(error, AdaptiveLSTMError):
        error = refusal(error)
    if isinstance(error, Refusal):
        status, message = error.status, str(error)
    elif isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
    else:
        log.error("a request failed", exc_info=error)
        status, message = 500, "internal error; the log of the server says more"
    service.told.refused[status] += 1
    return JSONResponse({"error": message}, status, {"connection": "close"} if status == 413 else None)


async def refused(request: Any, error: Exception) -> Response:
    """The same, for Starlette."""
    return answer(service_of(request), error)
