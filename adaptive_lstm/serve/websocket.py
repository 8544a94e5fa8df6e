"""A stream over a WebSocket: every binary message is frames, and is answered by their outputs, in order."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..errors import AdaptiveLSTMError, InputError
from . import tensors
from .refusals import Refusal
from .sequences import End, Sequence, answered
from .service import CLOSED, Service, log
from .web import answer, key_of, require_model, service_of

VANISHED, FAILED = End(1006, "vanished"), End(1011, "internal error")
LEFT = (1000, 1001)  # status of a client that closes on purpose
FAREWELL = 2.0  # seconds that closing may take
MOST_MESSAGES = 64  # whose answers are not sent yet
REASON = 100  # characters of a reason: they must fit 123 bytes


async def stream(websocket: WebSocket) -> None:
    """One connection, from its handshake to its end."""
    service = service_of(websocket)
    try:
        require_model(websocket)
        sequence = await _sequence(service, websocket)
    except (Refusal, AdaptiveLSTMError) as error:
        await _deny(websocket, answer(service, error), str(error))
        return
    sequence.held = True
    end = VANISHED
    try:
        await websocket.accept()
        end = await _Session(service, websocket, sequence).run()
    except WebSocketDisconnect:
        pass
    finally:
        service.close(sequence, end)
    if end == CLOSED:
        await service.forget(sequence.key, sequence)
    elif end != VANISHED:
        with contextlib.suppress(Exception):  # the client may be gone, or takes nothing
            await asyncio.wait_for(websocket.close(end.code, end.reason), FAREWELL)


async def _sequence(service: Service, websocket: WebSocket) -> Sequence:
    told = dict(websocket.query_params)
    resume = told.pop("resume", "false")
    key = key_of(websocket, told.pop("sequence_id", "") or secrets.token_urlsafe(12))
    if told or resume not in ("true", "false"):
        raise InputError(f"got {websocket.query_params!s:.100}, expected sequence_id and resume=true or false at most")
    return await service.resume(key) if resume == "true" else service.start(key)


async def _deny(websocket: WebSocket, response: Response, reason: str) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
        await asyncio.sleep(0)  # uvicorn calls it an error if this ends before its connection does
    else:
        await websocket.close(1008, reason[:REASON])


class _Session:
    """Reads and answers at the same time; what waits between is bounded, so a slow reader slows its own frames."""

    def __init__(self, service: Service, websocket: WebSocket, sequence: Sequence):
        self._service, self._websocket, self._sequence = service, websocket, sequence
        self._answers: asyncio.Queue[tuple[tensors.Frames, asyncio.Future[tensors.Frames]] | str] = asyncio.Queue(
            MOST_MESSAGES
        )

    async def run(self) -> End:
        """Serve until one side ends it: why."""
        sequence, shape = self._sequence, self._service.lstm.shape
        await self._websocket.send_json(
            {
                "sequence_id": sequence.key.name,
                "frames": sequence.frames,
                "input_size": shape.input_size,
                "output_size": shape.output_size,
            }
        )
        reader, writer = asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())
        ended = asyncio.ensure_future(sequence.ended.wait())
        tasks: list[asyncio.Future[Any]] = [reader, writer, ended]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return self._why(reader, writer)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._drop_answers()

    def _why(self, reader: asyncio.Future[int], writer: asyncio.Future[None]) -> End:
        if self._sequence.end is not None:
            return self._sequence.end
        if reader.done() and reader.exception() is None:
            return CLOSED if reader.result() in LEFT else VANISHED
        error = reader.exception() if reader.done() else writer.exception()
        if isinstance(error, Refusal):
            return End(1009 if error.status == 413 else 1008, str(error)[:REASON])
        if not isinstance(error, WebSocketDisconnect | OSError):
            log.error("a stream failed", exc_info=error)
            return FAILED
        return VANISHED

    async def _read(self) -> int:
        """Take messages until the client leaves: the status it leaves with."""
        service, sequence = self._service, self._sequence
        options, shape = service.options, service.lstm.shape
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            data = message.get("bytes")
            if data is None:
                await self._refuse(f"got text, expected binary messages of frames, {shape.input_size} float32 each")
                continue
            if len(data) > options.max_bytes:
                raise Refusal(413, f"got a message of {len(data):,} bytes, expected at most {options.max_bytes:,}")
            try:
                frames = tensors.as_frames(data, shape, options.backlog)
            except InputError as error:
                await self._refuse(str(error))
                continue
            await self._answers.put((frames, await sequence.push(frames)))

    async def _refuse(self, message: str) -> None:
        self._service.told.refused[400] += 1
        await self._answers.put(message)

    async def _write(self) -> None:
        while True:
            one = await self._answers.get()
            if isinstance(one, str):
                await self._websocket.send_json({"error": one})
                continue
            frames, outputs = one
            try:
                y = await outputs
                await self._websocket.send_bytes(y.astype("<f4", copy=False).tobytes())
            except BaseException:
                self._sequence.delivered(len(frames))
                raise
            self._service.delivered(self._sequence, frames, y)

    def _drop_answers(self) -> None:
        left = []
        while not self._answers.empty():
            one = self._answers.get_nowait()
            if not isinstance(one, str):
                left.append(one[1])
        answered(left)
