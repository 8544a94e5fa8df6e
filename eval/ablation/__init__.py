"""What every part of a setting brings."""
