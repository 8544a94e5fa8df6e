"""Memory and start-up."""
