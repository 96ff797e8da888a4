"""Functions in, commands out: their options, what Ctrl-C does to them, and errors as JSON."""
