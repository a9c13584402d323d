"""Recipes: audio."""
