"""Time of one call and of one step."""
