"""Training of embedding models: examples and losses."""
