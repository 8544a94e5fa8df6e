"""The server as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute

from ..deploy import LSTM, load
from ..errors import AdaptiveLSTMError
from ..files import FilePath
from .audited import Audited
from .options import ServeOptions
from .refusals import Refusal
from .routes import routes
from .service import Service
from .store import Store
from .web import refused
from .websocket import stream


def application(
    model: LSTM | FilePath,
    options: ServeOptions | None = None,
    *,
    store: Store | None = None,
    audited: Audited | None = None,
) -> Starlette:
    """An ASGI application that serves streams through an LSTM; it runs for as long as its lifespan.

    Args:
        model: an LSTM of ``deploy.load``, or a file that holds one.
        options: how it serves.
        store: where snapshots of the streams go; None: streams end with the process.
        audited: what is compared with the original model; None: nothing.

    Raises:
        ModelFileError, InputError, UnsupportedError, BackendError: as ``deploy.load`` and ``LSTM.stream_pool``.
    """
    lstm = model if isinstance(model, LSTM) else load(model).lstm
    service = Service(lstm, ServeOptions() if options is None else options, store, audited)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = Starlette(
        routes=[*routes(), WebSocketRoute("/v2/models/{name}/stream", stream)],
        exception_handlers=dict.fromkeys((Refusal, AdaptiveLSTMError, HTTPException, Exception), refused),
        lifespan=lifespan,
    )
    app.state.service = service
    return app
