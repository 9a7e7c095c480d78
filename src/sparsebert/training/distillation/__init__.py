"""Distillation: a student learns from a teacher what labels alone do not tell it."""
