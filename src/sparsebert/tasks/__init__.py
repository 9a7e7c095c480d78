"""The benchmark tasks and users' own tasks: reading and checking their data, and tokenising it."""
