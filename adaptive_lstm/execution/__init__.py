"""How a stack is run: by the native core, the readable reference, or torch."""
