"""The engines of the core."""
