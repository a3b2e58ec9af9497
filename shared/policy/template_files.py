"""The ready-made policies that ship with the product, one for each written regime."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from shared.policy.documents import Document, parse


@cache
def names() -> dict[str, str]:
    """File name without ending by regime: {"R04": "r04_window"}."""
    folder = files("shared.policy") / "templates"
    found = sorted(one.name.removesuffix(".yaml") for one in folder.iterdir() if one.name.endswith(".yaml"))
    return {name[:3].upper(): name for name in found}


@cache
def text_of(regime: str) -> str:
    """The template as written. Raises KeyError for a regime without one."""
    return (files("shared.policy") / "templates" / f"{names()[regime]}.yaml").read_text(encoding="utf-8")


@cache
def document_of(regime: str) -> Document:
    """The template, parsed. Raises KeyError for a regime without one."""
    return parse(text_of(regime))
