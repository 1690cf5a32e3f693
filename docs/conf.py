"""The documentation site: `make docs` writes it to build/docs; every warning is an error."""

from segpatch import __version__

project = "segpatch"
author = "the segpatch authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["results/*/index.html"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
html_theme = "furo"
html_title = "segpatch"
html_show_sourcelink = False
