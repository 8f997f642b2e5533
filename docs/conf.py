"""Configuration of the documentation; `make docs` builds it with warnings as errors."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]
# The pages with code cells are run in a kernel, a process of its own.
os.environ["PYTHONPATH"] = str(ROOT)

from gpualloc_env import __version__  # noqa: E402

project = "GPUAlloc"
author = "The GPUAlloc authors"
copyright = "The GPUAlloc authors"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mathml",
    "docstrings",
]
exclude_patterns = ["_build"]
templates_path: list[str] = []
nitpicky = False

# Pages
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# Code cells
highlight_language = "none"
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
# The notice that the simulator is being compiled comes on a machine's first run alone.
nb_output_stderr = "remove"

# Docstrings: Google's sections, Markdown's code
default_role = "literal"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "exclude-members": "model_config, model_post_init"}

# Site
html_theme = "furo"
html_title = "GPUAlloc"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
