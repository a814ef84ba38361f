"""Integer graph to program: placement, lowering, instruction and weight-stream emission."""
