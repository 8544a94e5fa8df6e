"""Static pruning: which weights go, and what those that stay do about it. No gradient step, the model is unchanged."""

from __future__ import annotations

from .model import prune_model as prune_model
from .settings import Prune as Prune

__all__ = ["Prune", "prune_model"]
