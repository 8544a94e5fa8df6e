"""Static pruning: which weights are removed, and how the others compensate. No gradient step."""

from .prune_model import prune_model as prune_model
from .settings import Prune as Prune

__all__ = ["Prune", "prune_model"]
