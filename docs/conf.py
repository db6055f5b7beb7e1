"""The site of the documentation: `make docs` builds it in docs/_build/html."""

project = "mixer_jax"
author = "the mixer_jax authors"
copyright = "2026, the mixer_jax authors. Apache License 2.0"

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "mixer_jax"
