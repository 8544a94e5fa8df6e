"""Quality against time, all peers on real models."""
