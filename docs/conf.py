"""Sphinx configuration: ``sphinx-build -W --keep-going docs docs/_build/html``."""

import fastml

project = "fastml"
author = "fastml developers"
copyright = f"2026, {author}"
version = release = fastml.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

suppress_warnings = ["ref.ref", "ref.term"]  # docstrings inherited from scikit-learn refer to its own guide

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_validation_checks = {"PR01", "PR02", "PR03", "RT01", "SS03", "GL03"}
numpydoc_validation_exclude = {
    r"\.set_.*_request$",
    r"\.(get|set)_params$",
    r"\.set_callbacks$",
    r"\.get_metadata_routing$",
}

doctest_global_setup = """
import numpy as np
np.set_printoptions(precision=4, suppress=True)
"""

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 60,
}

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = f"fastml {version}"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2}
