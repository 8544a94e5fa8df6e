"""Does something when a module has been imported, without importing it: torch is large, and its compiler larger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def when_imported(name: str, do: Callable[[], object]) -> None:
    """Call once, as soon as a module has been imported: now, if it has been.

    Args:
        name: of the module.
        do: what is called.
    """
    if sys.modules.get(name) is not None:
        do()
    else:
        sys.meta_path.insert(0, _Waiting(name, do))


class _Waiting:
    """A finder that finds a module where the others do, and adds a call to its execution."""

    def __init__(self, name: str, do: Callable[[], object]):
        self._name, self._do, self._asks = name, do, False

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """As ``importlib.abc.MetaPathFinder.find_spec``."""
        if name != self._name or self._asks:
            return None
        self._asks = True  # so that several that wait for one module all get it
        try:
            specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
            spec: Any = next((spec for spec in specs if spec is not None), None)
        finally:
            self._asks = False
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._do()

        loader.exec_module = executed
