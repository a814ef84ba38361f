"""Linear layers: every product of activations and constant weights."""
