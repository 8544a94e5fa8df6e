"""Run saved LSTMs on numpy arrays, without torch: ``load`` a file that ``adaptive_lstm.save(..., weights=True)`` wrote.

::

    from adaptive_lstm import deploy

    lstm = deploy.load("model.alstm").lstm
    y, (h, c), stats = lstm.run(x)  # x: [T, B, I] or [T, I]
    stream = lstm.stream()
    y = stream.step(frame)  # frame: [1, I]

    pool = lstm.stream_pool(capacity=512)  # streams that come and go

Results are those of the same model beside torch, bit for bit.
"""

from typing import TYPE_CHECKING

from ..runtime.array_pool import StreamPool as StreamPool
from ..runtime.seats import StreamStats as StreamStats
from .lstm import LSTM as LSTM
from .lstm import Output as Output
from .model import Model as Model
from .model import load as load
from .stream import Stream as Stream

if TYPE_CHECKING:
    from ..runtime.array_async_pool import AsyncStreamPool as AsyncStreamPool


def __getattr__(name: str) -> object:
    if name == "AsyncStreamPool":  # asyncio is as much to import as half of numpy
        from ..runtime.array_async_pool import AsyncStreamPool

        globals()[name] = AsyncStreamPool
        return AsyncStreamPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
