"""Which ``nn.LSTM`` becomes another class of the same layout, and how: torch's own, and those that are parametrized.

``torch.nn.utils.parametrize`` gives a module a class of its own, a subclass that holds nothing but a property for each
computed weight. It is made anew on the other class.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

_OF_ITS_BASE = ("__dict__", "__weakref__", "__doc__", "__slotnames__", "__deepcopy__")


def plain_class(lstm: nn.LSTM) -> type[nn.LSTM]:
    """The class of an LSTM, without what its parametrizations add."""
    generated = parametrize.is_parametrized(lstm) and type(lstm).__module__ == parametrize.__name__
    return type(lstm).__bases__[0] if generated else type(lstm)


def convert(lstm: nn.LSTM, cls: type[nn.LSTM]) -> None:
    """Make an LSTM, parametrized or not, one of another class."""
    if plain_class(lstm) is type(lstm):
        lstm.__class__ = cls
        return
    properties = {name: value for name, value in vars(type(lstm)).items() if name not in _OF_ITS_BASE}
    lstm.__class__ = type(f"Parametrized{cls.__name__}", (cls,), properties)
