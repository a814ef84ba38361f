"""The matrix unit and its accumulators."""
