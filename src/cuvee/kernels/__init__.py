"""Fast numerics in pure torch; they know nothing of files, methods or models."""
