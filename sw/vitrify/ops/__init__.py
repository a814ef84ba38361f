"""The operations, one folder each: from a canonical node to integers to instructions."""
