"""Search, proof, and the record."""
