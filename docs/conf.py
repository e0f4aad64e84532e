"""Configuration of Sphinx.

One command builds the pages, without a network::

python -m sphinx -W --keep-going -b html docs docs/_build/html
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE / "_ext")]

import examples_gallery  # noqa: E402

import sklearn_dl  # noqa: E402

project = "sklearn_dl"
author = "The sklearn_dl founders"
version = release = sklearn_dl.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "reference",
    "repository_links",
]
exclude_patterns = ["_build", "_ext", "gallery_scripts"]
default_role = "py:obj"
autosummary_generate = False
autodoc_typehints = "none"
numpydoc_show_class_members = False
python_maximum_signature_line_length = 60
toc_object_entries_show_parents = "hide"
myst_heading_anchors = 3
smartquotes = False  # messages are found as they are written
suppress_warnings = ["config.cache"]

examples_gallery.copy_scripts()
sphinx_gallery_conf = examples_gallery.configuration()

html_theme = "pydata_sphinx_theme"
html_title = "sklearn_dl"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_extra_path = [str(examples_gallery.REPORT.parent)]
html_show_sourcelink = False
html_sidebars = {"*": []}  # pages without others beside them
html_theme_options = {
    "logo": {"text": "sklearn_dl"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
    "footer_start": ["copyright"],
    "footer_end": [],
}
