"""Laws about the source itself."""
