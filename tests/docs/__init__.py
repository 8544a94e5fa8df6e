"""README and docs: what they show runs as it stands."""
