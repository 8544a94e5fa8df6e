"""Serve streams to many clients: WebSockets and the HTTP protocol of KServe around one pool. Needs no torch.

::

    python -m adaptive_lstm.serve model.alstm --port 8000

``application`` is the same as an ASGI application, for any server and for Ray Serve (``on_ray``). The package wants the
extra ``serve``; results are those of a stream of its own for every client.
"""

from typing import TYPE_CHECKING

from .audited import Audited as Audited
from .options import ServeOptions as ServeOptions
from .store import FolderStore as FolderStore
from .store import Store as Store

if TYPE_CHECKING:
    from .asgi import application as application


def __getattr__(name: str) -> object:
    if name == "application":  # the rest can be had without the extra
        from .packages import needed

        globals()[name] = needed("adaptive_lstm.serve.asgi").application
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
