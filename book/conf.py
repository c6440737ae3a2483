"""Sphinx's settings for the book. `python -m book` collects the pages and runs Sphinx."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from book.opening import repository, ways_to_open  # noqa: E402

project = "Transformer"
author = "Transformer contributors"
project_copyright = "Transformer contributors, MIT licence"
language = "en"

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx_copybutton"]
root_doc = "index"
# Files of the repository that pages link to, but that are no pages of the book.
exclude_patterns = ["README.md", "CODE_OF_CONDUCT.md", "paper/*"]

nb_execution_mode = "off"  # the stored outputs are the reference; the tests compare them
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
highlight_language = "text"
python_maximum_signature_line_length = 72
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
add_module_names = False

# The glyphs are paths inside this one file: no fonts to load, and it works from a folder.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"svg": {"fontCache": "global"}, "options": {"menuOptions": {"settings": {}}}}

html_theme = "pydata_sphinx_theme"
html_title = "Transformer"
html_static_path = ["static", "_build/static"]
templates_path = ["templates"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_favicon = "static/icon.svg"
html_show_sphinx = False
html_sourcelink_suffix = ""
html_sidebars = {"**": ["chapters"]}
html_theme_options = {
    "logo": {"text": "Transformer", "alt_text": "Transformer, first page"},
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "article_header_start": ["breadcrumbs"],
    "article_header_end": ["open"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "primary_sidebar_end": [],
    "show_toc_level": 1,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "search_bar_text": "Search the book",
}
html_context = {"repository": repository(), "default_mode": "auto"}

copybutton_selector = "div.cell_input pre, div.highlight-default pre, div.highlight-text pre"
copybutton_exclude = ".linenos, .gp, .go"


PARAMETERS = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")


def mend_lists(app, pagename, templatename, context, doctree) -> None:
    """Give parameters on lines of their own an element that may stand in a signature.

    Sphinx makes lists of definitions that define nothing, which screen readers stumble over.
    """

    def spans(found: re.Match[str]) -> str:
        lines = found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
        return f'<span class="sig-lines">\n{lines}</span>'

    context["body"] = PARAMETERS.sub(spans, context.get("body", ""))


def add_ways(app, pagename, templatename, context, doctree) -> None:
    """Tell the template of a chapter in which ways it can be opened."""
    context["ways"] = ways_to_open(pagename, context["repository"])


def setup(app) -> None:
    """Connect what is done to each page."""
    app.connect("html-page-context", add_ways)
    app.connect("html-page-context", mend_lists)
