"""What runs a program: job queue, instruction fetch, dispatcher, supervisor, counters."""
