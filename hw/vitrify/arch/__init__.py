"""The contract: configuration, number formats, instruction set, registers and memory layouts."""
