"""From Verilog to a part: synthesis, placement, and later bitstreams, by open tools."""
