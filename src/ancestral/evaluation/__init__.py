"""Evaluation: what a fitted model is worth, in numbers and pictures."""
