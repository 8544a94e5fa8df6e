"""Which module becomes one of another class of the same layout, and how: torch's own, and those that are parametrized.

``torch.nn.utils.parametrize`` gives a module a class of its own, a subclass that holds nothing but a property for each
computed weight. It is made anew on the other class.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

_OF_ITS_BASE = ("__dict__", "__weakref__", "__doc__", "__slotnames__", "__deepcopy__")


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module, without what its parametrizations add."""
    generated = parametrize.is_parametrized(module) and type(module).__module__ == parametrize.__name__
    return type(module).__bases__[0] if generated else type(module)


def convert(module: nn.Module, cls: type[nn.Module]) -> None:
    """Make a module, parametrized or not, one of another class."""
    if plain_class(module) is type(module):
        module.__class__ = cls
        return
    properties = {name: value for name, value in vars(type(module)).items() if name not in _OF_ITS_BASE}
    module.__class__ = type(f"Parametrized{cls.__name__}", (cls,), properties)
