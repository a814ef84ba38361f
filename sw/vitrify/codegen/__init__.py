"""What every lowering uses: token memory, weight stream, instructions; knows no operation."""
