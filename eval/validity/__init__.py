"""Whether certificates hold as often as they promise."""
