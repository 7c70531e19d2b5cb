"""The templates of the page, filled in by jinja2."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

# Values are escaped, since anybody may name a column.
ENVIRONMENT = Environment(
    loader=PackageLoader("cnf.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


def filled(name: str, **values: Any) -> Markup:
    """A template of this folder, by the name of its file, filled in."""
    return Markup(ENVIRONMENT.get_template(name).render(**values))


def asset(name: str) -> str:
    """The text of a style or a script of the page."""
    return files("cnf.report").joinpath(name).read_text(encoding="utf-8")


def markup(template: str, **values: Any) -> Markup:
    """The text of a template filled in.

    >>> markup("<p>{{ name }}</p>", name="a<b>")
    Markup('<p>a&lt;b&gt;</p>')
    """
    return Markup(ENVIRONMENT.from_string(template).render(**values))
