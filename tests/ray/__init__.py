"""Saved LSTMs over datasets of Ray: what ``Scorer`` does to a batch, and what a cluster does with it."""
