"""Recipes: table."""
