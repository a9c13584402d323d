"""What the site's pages are generated from: orders, docstrings, recipes, results."""
