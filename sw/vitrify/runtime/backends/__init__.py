"""One module a backend, each imported when it is asked for."""
