"""Every idea of the project with and without."""
