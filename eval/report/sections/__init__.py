"""One file per question; each has ``build(results) -> Section``."""
