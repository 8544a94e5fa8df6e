"""The law of every policy."""
