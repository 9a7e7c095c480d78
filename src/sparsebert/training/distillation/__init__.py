"""Distillation: a student learns from a teacher what the task's labels alone do not say."""
