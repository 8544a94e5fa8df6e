"""The HTTP protocol of KServe v2, with Triton's vocabulary of sequences, and what moves a sequence."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import adaptive_lstm

from . import tensors
from .refusals import Refusal
from .sequences import Key, Sequence
from .service import CLOSED, PATIENCE, Service, require_free
from .web import body_of, key_of, require_model, service_of

LONG = 2**14  # bytes from which on JSON is read and written in a thread, so that the event loop goes on
SNAPSHOT = "application/octet-stream"


async def infer(request: Request) -> Response:
    """Frames in, outputs out: of a sequence that goes on, or of a whole one."""
    require_model(request)
    service = service_of(request)
    options, shape = service.options, service.lstm.shape
    body = await body_of(request, options.max_bytes)
    given = (body, request.headers.get(tensors.HEADER_LENGTH), shape, options.backlog)
    asked = await asyncio.to_thread(tensors.read, *given) if len(body) > LONG else tensors.read(*given)
    if asked.sequence:
        y, frames = await _part(service, key_of(request, asked.sequence), asked)
    else:
        y, frames = await _whole(service, key_of(request, secrets.token_urlsafe()), asked.frames), len(asked.frames)
    told = (y, options.name, asked, frames)
    content, headers = await asyncio.to_thread(tensors.reply, *told) if y.nbytes > LONG else tensors.reply(*told)
    return Response(content, headers=headers)


async def _whole(service: Service, key: Key, frames: tensors.Frames) -> tensors.Frames:
    sequence = service.start(key)
    try:
        return await _run(service, sequence, frames)
    finally:
        service.close(sequence, CLOSED)


async def _part(service: Service, key: Key, asked: tensors.Request) -> tuple[tensors.Frames, int]:
    found = service.sequences.get(key)
    if found is not None:
        require_free(found)
    if asked.start:
        sequence = service.start(key)
    else:
        sequence = await service.resume(key) if asked.resume else service.going_on(key)
    y = await _run(service, sequence, asked.frames)
    if asked.end:
        service.close(sequence, CLOSED)
        await service.forget(key, sequence)
    return y, sequence.frames


async def _run(service: Service, sequence: Sequence, frames: tensors.Frames) -> tensors.Frames:
    if not sequence.has_room(len(frames)):
        raise Refusal(429, f"{sequence.waiting} frames of the sequence wait; send these once they were answered")
    outputs = await sequence.push(frames)
    try:
        y = await outputs
    except BaseException:
        sequence.delivered(len(frames))
        raise
    service.delivered(sequence, frames, y)
    return y


async def sequence(request: Request) -> Response:
    """A sequence as a thing of its own: take its snapshot (GET), continue it from one (PUT), close it (DELETE)."""
    require_model(request)
    service, key = service_of(request), key_of(request, request.path_params["sequence"])
    if not key.name:
        raise Refusal(404, "got 0 as a sequence_id, which names none")
    if request.method == "PUT":
        snapshot = await body_of(request, service.options.max_bytes)
        restored = await service.restore(key, snapshot)
        return JSONResponse({"sequence_id": key.name, "frames": restored.frames})
    if request.method == "DELETE":
        open_one = service.sequences.get(key)
        if open_one is not None:
            service.close(require_free(open_one), CLOSED)
        await service.forget(key, open_one)
        return Response(status_code=204)
    found = service.sequences.get(key)
    if found is None:
        raise Refusal(404, f"sequence {key.name:.50} is not open")
    try:
        data, frames = await asyncio.wait_for(found.snapshot(), PATIENCE)
    except asyncio.TimeoutError:
        raise Refusal(409, "results of the sequence are not taken, so it cannot be told where it is") from None
    return Response(data, media_type=SNAPSHOT, headers={"x-frames": str(frames)})


async def server(request: Request) -> Response:
    """What this server is."""
    extensions = ["binary_tensor_data", "parameters", "sequence"]
    return JSONResponse({"name": "adaptive_lstm", "version": adaptive_lstm.__version__, "extensions": extensions})


async def model(request: Request) -> Response:
    """What the model takes and gives."""
    require_model(request)
    service = service_of(request)
    return JSONResponse(tensors.metadata(service.options.name, service.lstm.shape))


async def live(request: Request) -> Response:
    """Whether this process serves at all; if not, start another one."""
    return _health("live", service_of(request).pool.running)


async def ready(request: Request) -> Response:
    """Whether it takes new sequences."""
    return _health("ready", service_of(request).ready)


async def model_ready(request: Request) -> Response:
    """The same of a model."""
    require_model(request)
    return _health("ready", service_of(request).ready)


async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(service_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _health(name: str, well: bool) -> Response:
    return JSONResponse({name: well}, 200 if well else 503)


def routes() -> list[Any]:
    """All of them."""
    one = "/v2/models/{name}"
    found = [
        Route("/v2", server, methods=["GET"]),
        Route("/v2/health/live", live, methods=["GET"]),
        Route("/v2/health/ready", ready, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route(one + "/sequences/{sequence}", sequence, methods=["GET", "PUT", "DELETE"]),
    ]
    for path in (one, one + "/versions/{version}"):
        found.append(Route(path, model, methods=["GET"]))
        found.append(Route(path + "/ready", model_ready, methods=["GET"]))
        found.append(Route(path + "/infer", infer, methods=["POST"]))
    return found
