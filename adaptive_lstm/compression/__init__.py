"""Done once, in place: which weights go, in which precision, and what the rest do about it."""
