"""Sphinx configuration; see https://www.sphinx-doc.org/en/master/usage/configuration.html."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import document
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

here = Path(__file__).parent
# So that the pages build without an install.
sys.path[:0] = [str(here), str(here.parent)]

import backbone_table
import benchmark_tables
import concept_figures
import fdrl_layers
import inventory
import measured
import pictures
import study_tables

project = "fdrl-layers"
author = "the fdrl-layers authors"
copyright = f"2026, {author}"
version = release = fdrl_layers.__version__

extensions = [
    "myst_parser",
    "study_roles",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "drawn_math",
    "self_contained",
]
html_math_renderer = "drawn"
exclude_patterns = ["_build", "_generated"]
nitpicky = True
nitpick_ignore = [
    # The base class's module path, which torch's own documentation does not list.
    ("py:class", "torch.nn.modules.module.Module"),
]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Single backticks in docstrings mark code.
default_role = "literal"

autoclass_content = "class"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
autosummary_generate = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape", "Reference"]

backbone_table.write(here / "_generated")
benchmark_tables.write(here / "_generated")
measured.write(here / "_generated")
pictures.write(here / "_generated")
study_tables.write(here / "_generated")
concept_figures.write(here / "_generated")

# For examples that need a library that may be missing: `:skipif: lacks("captum")`.
doctest_global_setup = """
from importlib.util import find_spec

def lacks(*libraries):
    return any(find_spec(library) is None for library in libraries)
"""

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"
bibtex_reference_style = "label"

_made = here / "_build" / "inventories"
intersphinx_mapping = {
    name: (url, (None, inventory.write_inventory(_made / f"{name}.inv", name, names)))
    for name, url, names in [
        ("python", "https://docs.python.org/3", inventory.PYTHON),
        ("torch", "https://docs.pytorch.org/docs/stable", inventory.TORCH),
    ]
}
intersphinx_timeout = 10

sphinx_gallery_conf = {
    "examples_dirs": "../examples/tutorials",
    "gallery_dirs": "tutorials",
    "abort_on_example_error": True,
    "image_scrapers": ("figure_style.scrape",),
    "reset_modules": ("figure_style.use",),
    "capture_repr": (),
    "min_reported_time": 1,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "fdrl-layers"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#3d4fb5", "color-brand-content": "#3d4fb5"},
    "dark_css_variables": {"color-brand-primary": "#a7b4ff", "color-brand-content": "#a7b4ff"},
}


def escape_leading_axes(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    r"""Escape the star of a shape such as (*, M, D), which would start emphasis."""
    lines[:] = [re.sub(r"(?<!\\)\(\*(?=[,)])", r"(\*", line) for line in lines]


def find_short_names(app: Sphinx, doctree: document) -> None:
    """Resolve short names such as :class:`FDRLOutput` in the docstrings of all modules."""
    for reference in doctree.findall(pending_xref):
        if reference.get("refdomain") == "py":
            reference["refspecific"] = True


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", escape_leading_axes)
    app.connect("doctree-read", find_short_names)
