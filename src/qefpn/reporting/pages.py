"""Pages: one template, one style sheet, everything in one file."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any


@functools.cache
def _environment() -> Any:
    import jinja2

    templates = resources.files("qefpn.reporting") / "templates"
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip


def render(template: str, **values: Any) -> str:
    """A page as text.

    Args:
        template: its name; it extends ``page.html``.
        values: what it shows. Each page has ``title`` and ``contents``, pairs of a section's identifier and name.
    """
    return str(_environment().get_template(template).render(**values))
