"""Class names as sentences: what an image-text model reads instead of a bare name (CLIP, arXiv 2103.00020, 3.1.4)."""

from __future__ import annotations

import re

from open_florence.errors import OpenFlorenceError

TEMPLATES = ("{}", "a {}", "a photo of a {}", "an image of a {}")
"""Sentences with a place for a class name, general enough for any image."""


def fill(template: str, name: str) -> str:
    """The template with `name` in the place of "{}"; "a {}" becomes "an {}" before a vowel.

    Raises OpenFlorenceError for a template without a place.
    """
    if "{}" not in template:
        raise OpenFlorenceError(f"the template {template!r} has no {{}} where the name of the class goes")
    if name[:1].lower() in tuple("aeiou"):
        template = re.sub(r"\b([Aa]) (?=\{\})", r"\1n ", template)
    return template.replace("{}", name)
