"""Recipes: any."""
