"""Builds the documentation: `make docs`. The pages are Markdown, and read well without it."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.cli
import typer.main
from sphinx.application import Sphinx
from sphinx.ext.intersphinx import resolve_reference_detect_inventory

import cnf
from cnf.cli.app import app as commands

DOCS = Path(__file__).parent
REPOSITORY = DOCS.parent
SCRIPTS, FIGURES = REPOSITORY / "scripts", REPOSITORY / "figures"
THUMBNAIL = re.compile(r"^# sphinx_gallery_thumbnail_path", re.MULTILINE)
DRAWING = [each.stem for each in SCRIPTS.glob("*.py") if THUMBNAIL.search(each.read_text("utf-8"))]
sys.path += [str(DOCS), str(REPOSITORY / "tests")]
from notebooks import notebook  # noqa: E402 (of this folder)

project = "cnf"
author = "the authors of cnf"
release = version = cnf.__version__
extensions = [
    *("myst_nb", "sphinx_gallery.gen_gallery"),
    *("sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"),
]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["inventories", "*.py", "scripts/*.ipynb", "scripts/*.py"]

# Tutorials run when the site is built: `-D nb_execution_mode=off` leaves that to `make pages`.
nb_execution_mode = "force"
nb_execution_in_temp = nb_execution_raise_on_error = nb_merge_streams = True
nb_execution_timeout = 300
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["PYTHONUNBUFFERED"] = "1"

# Scripts that draw, with their source. They train for minutes to hours, so that what they drew is shown.
sphinx_gallery_conf = {
    "examples_dirs": str(SCRIPTS),
    "gallery_dirs": "scripts",
    "ignore_pattern": rf"^(?!(?:{'|'.join(DRAWING)})\.py$)\w+\.py$",
    "plot_gallery": False,
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "notebook_extensions": {},
    "min_reported_time": 1e9,
}

default_role = "code"  # Docstrings have single backticks.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
# Of each library the names that our signatures use, so that no build needs the network.
intersphinx_mapping = {
    name: (url, f"inventories/{name}.inv")
    for name, url in {
        "torch": "https://docs.pytorch.org/docs/stable/",
        "python": "https://docs.python.org/3/",
        "numpy": "https://numpy.org/doc/stable/",
        "pandas": "https://pandas.pydata.org/docs/",
        "scikit-learn": "https://scikit-learn.org/stable/",
        "matplotlib": "https://matplotlib.org/stable/",
    }.items()
}

# Where a library defines a class is not where its documentation has it.
ALIASES = {
    "torch._C.Generator": "torch.Generator",
    "torch.nn.modules.module.Module": "torch.nn.Module",
    "torch.nn.parameter.Parameter": "torch.nn.Parameter",
    "matplotlib.axes._axes.Axes": "matplotlib.axes.Axes",
    "Axes": "matplotlib.axes.Axes",
    "Tensor": "torch.Tensor",
    "np.ndarray": "numpy.ndarray",
    "pd.DataFrame": "pandas.DataFrame",
}

html_theme = "furo"
html_static_path, html_css_files = ["static"], ["site.css"]
html_title = f"cnf {release}"
html_show_sphinx = html_show_copyright = False
html_show_search_summary = False  # A page from the disk may not read others.
html_theme_options = {"navigation_with_keys": True}

# Pages of the repository's root, which the site has under names of its own.
OF_THE_ROOT = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contribute.md"}


def complete(_: Sphinx, page: str, source: list[str]) -> None:
    """Give a page what is made from the repository: pages of its root, commands, contents."""
    text = source[0]
    if page.startswith("scripts/"):
        source[0] = with_pictures(page, text)
        return
    up = "../" * page.count("/")
    for name, here in OF_THE_ROOT.items():
        text = re.sub(rf"\]\((?:\.\./)+{re.escape(name)}", f"]({up}{here}", text)
        if f"{page}.md" == here:
            text = of_the_root(name)
    if page == "reference/commands":
        text += command_reference()
    if page == "gallery":
        text = text.replace("](../scripts/)", "](scripts/index.rst)")
        text += "\n```{toctree}\n:hidden:\nscripts/index\n```\n"
    if page.endswith(("index", "README")):
        text += contents(text)
    elif page.startswith("tutorials/"):
        text = notebook(text)
    source[0] = text


def with_pictures(page: str, text: str) -> str:
    """The page of a script with what it drew before its source, and with its docstring as it stands."""
    name = Path(page).name
    if name not in DRAWING:
        return text
    drawn = sorted(FIGURES.glob(f"{name}*.png"))
    pictures = "".join(f".. image:: ../../figures/{each.name}\n\n" for each in drawn)
    text = text[
        text.index(".. rst-class:: sphx-glr-example-title") :
    ]  # not that there is a download
    docstring, mark, source = text.partition(".. GENERATED FROM PYTHON SOURCE LINES")
    return docstring.replace("|", r"\|") + pictures + mark + source


def of_the_root(name: str) -> str:
    """A page of the repository's root, with the links of a page in docs/."""
    text = (REPOSITORY / name).read_text(encoding="utf-8").replace("](docs/", "](")
    for other, here in OF_THE_ROOT.items():
        text = text.replace(f"]({other}", f"]({here}")
    return text


def contents(text: str) -> str:
    """The tree below a page: the pages of its list items and tables, under the headings there."""
    trees = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        pages = re.findall(r"^(?:- |.*\| )\[[^]]*\]\(([\w/.-]+)\.md\)", section, re.MULTILINE)
        if pages:
            caption = section.partition("\n")[0].removeprefix("# ")
            trees += ["\n```{toctree}", ":hidden:", f":caption: {caption}", *pages, "```\n"]
    return "\n".join(trees)


def command_reference() -> str:
    """Every command with its options, as typer describes them."""
    command = typer.main.get_command(commands)
    context = command.make_context("cnf", [], resilient_parsing=True)
    described = typer.cli.get_docs_for_click(obj=command, ctx=context, name="cnf")
    return described[described.index("## ") :]


def translate(_: Sphinx, kind: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Have docstrings, which know backticks and sections alone, mean the same to docutils."""
    if kind == "module":
        lines[:] = with_listings(lines)
    if kind in ("property", "attribute"):
        lines[:1] = [f": {line}" for line in lines[:1]]  # or a colon ends a type, to napoleon
    for place, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|]|_\b)", r"\\\1", part) for part in parts[::2]]
            lines[place] = "".join(parts)


def with_listings(lines: list[str]) -> list[str]:
    """Paragraphs that are set in columns, of names and what they are, as they stand."""
    done: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        part = paragraph.split("\n")
        if re.search(r"\S {3,}\S", paragraph):
            part = [".. code-block:: text", "", *(f"    {line}" for line in part)]
        done += [*part, ""]
    return done


def skip(app: Sphinx, kind: str, name: str, found: Any, *_: Any) -> bool | None:
    """Leave to the page of `cnf` what can be imported from there, and to scikit-learn its own."""
    on_front = kind == "module" and getattr(cnf, name, None) is found
    elsewhere = on_front and app.env.docname != "reference/cnf"
    return True if elsewhere or re.fullmatch("set_.*_request|get_metadata_routing", name) else None


def write_llms(app: Sphinx, error: Exception | None) -> None:
    """llms.txt (llmstxt.org): each page with what its first sentence says, as Markdown."""
    if error is not None:
        return
    lines = [f"# {project}", "", f"> {summary(DOCS / 'index.md')}", ""]
    for page in sorted(app.env.found_docs - {"index"}):
        source = Path(app.env.doc2path(page))
        title = app.env.titles[page].astext()
        lines.append(f"- [{title}](_sources/{page}{source.suffix}.txt): {summary(source)}")
    (app.outdir / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def summary(page: Path) -> str:
    """The first sentence of a page, without its links; of a module's page, that of the module."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", page.read_text(encoding="utf-8"))
    if module := re.search(r"automodule:: (\S+)", text):
        text = f"\n\n{import_module(module[1]).__doc__}"
    paragraphs = [
        each
        for each in text.split("\n\n")[1:]
        if (each[:1].isalpha() or re.match(r"`\w", each)) and "\n===" not in each
    ]
    return re.split(r"(?<=[.?])\s", " ".join(paragraphs[0].split()))[0].rstrip(":")


def resolve(app: Sphinx, environment: Any, node: Any, shown: Any) -> Any:
    """The documentation of a class under the name that users import."""
    if (name := ALIASES.get(node.get("reftarget"))) is None:
        return None
    node["reftarget"] = name
    return resolve_reference_detect_inventory(environment, node, shown)


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", translate, priority=400)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve, priority=400)
    app.connect("build-finished", write_llms)
