"""Where it runs: a command enters, a job on a Ray cluster leaves."""
