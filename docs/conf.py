"""The site: Sphinx reads this checkout where it lies, so that links between pages are the same here and on a repository's page."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docutils.nodes import SkipNode, math_block  # noqa: E402
from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402
from sphinx import addnodes  # noqa: E402

import dynlib  # noqa: E402
from dynlib.report import play  # noqa: E402

project, author = "Robustness of dynamic neural networks", "The authors of this companion"
release, html_title = dynlib.__version__, project
extensions, root_doc = ["myst_nb"], "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "*/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "data", "runs", "site", "dynlib", "tests", "workflow"]

nb_execution_mode = "off"  # the published notebooks hold their outputs
nb_ipywidgets_js: dict = {}  # nothing is fetched from elsewhere
myst_enable_extensions = ["html_image", "dollarmath"]
myst_heading_anchors = 3

html_theme, html_static_path, html_extra_path = "furo", ["play"], ["extra"]
html_css_files, html_math_renderer = ["play.css"], "mathml"
html_show_sphinx, html_copy_source, html_show_copyright = False, False, False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d4fa8", "color-brand-content": "#1d4fa8"},  # readable relatives of C0
    "dark_css_variables": {"color-brand-primary": "#8fb5ff", "color-brand-content": "#8fb5ff"},
}


def plain_folders(app, doctree):
    """A link to a folder has no page to lead to: its text stays."""
    here = Path(app.env.doc2path(app.env.docname)).parent
    for node in list(doctree.findall(addnodes.pending_xref)):
        if (here / node["reftarget"]).is_dir():
            node.replace_self(node.children)


def play_data(app, error):
    """The data of the two pages to play with, beside the other static files."""
    if error is None and app.builder.format == "html":
        play.write(Path(app.outdir) / "_static")


def formula(self, node):
    """Browsers draw MathML themselves, so that no script is needed; a command that cannot be translated fails the build."""
    block = isinstance(node, math_block)
    drawn = tex2mathml(node.astext(), as_block=block)
    self.body.append(f'<div class="formula">{drawn}</div>' if block else drawn)
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("doctree-read", plain_folders)
    app.connect("build-finished", play_data)
