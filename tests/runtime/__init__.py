"""The module and the stream, as users hold them."""
