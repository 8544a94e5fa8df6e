"""Pruning, rounding, and the choice between them."""
