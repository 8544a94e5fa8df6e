"""Whether certificates hold as often as they say."""
