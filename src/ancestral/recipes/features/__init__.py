"""Feature networks that images are compared by."""
