"""The time of one call and of one step."""
