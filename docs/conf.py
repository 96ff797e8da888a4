"""How the pages are built: `make docs`."""

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "headstart"
author = "The headstart authors"
release = metadata.version("headstart")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
highlight_language = "text"
html_theme = "furo"
html_show_copyright = False
html_title = f"headstart {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
copybutton_prompt_text = "$ "
suppress_warnings = ["myst.xref_missing"]  # pages link to files of the repository as well


def setup(app):
    """Write the reference of commands before pages are read."""
    from command_reference import pages

    (HERE / "reference" / "commands.md").write_text(pages())
