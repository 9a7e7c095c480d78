"""The routes, a file for each thing they do."""
