"""The documentation site's generated pages: methods, recipes, the Python reference, the commands.

Nothing here needs mkdocs: pages are text made from docstrings, recipes, parsers and tests. Only
`mathml` needs a library of the group `docs`, when formulas are drawn.
"""
