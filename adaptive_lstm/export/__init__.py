"""A model as C99 source for a microcontroller: its weights as constants, and one engine that runs them."""
