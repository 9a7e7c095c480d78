"""Upstream pruning: a sparse model for any task, trained on unlabelled texts."""
