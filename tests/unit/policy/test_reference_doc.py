"""docs/policy-reference.md is made from the language and leaves nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Struct

from shared.engine.model import ENTRY_KINDS
from shared.policy import schema, scope
from shared.policy.cel.functions import standard_functions
from shared.policy.json_schema import json_schema
from shared.policy.meanings import keys_of, meanings_of, summary_of
from shared.policy.naming import COMMON_NAMES
from shared.policy.reference_doc import SECTIONS, reference, unexplained
from shared.policy.words import EFFECTS, KINDS, PARTS, PENALTIES

PAGE = Path(__file__).parents[3] / "docs" / "policy-reference.md"


def test_the_page_is_up_to_date() -> None:
    """`make docs` writes it."""
    assert PAGE.read_text(encoding="utf-8") == reference()


def test_every_section_of_the_language_is_on_the_page() -> None:
    assert unexplained() == set()


@pytest.mark.parametrize("kind", [one for kinds in SECTIONS.values() for one in kinds], ids=lambda kind: kind.__name__)
def test_every_key_has_a_meaning(kind: type[Struct]) -> None:
    assert summary_of(kind)
    meanings = meanings_of(kind)
    assert list(meanings) == keys_of(kind)
    assert all(meanings.values())


def test_a_key_that_nobody_has_explained_is_noticed() -> None:
    class Bare(Struct):
        """Something."""

        colour: str

    with pytest.raises(KeyError, match="colour"):
        meanings_of(Bare)


def test_a_meaning_may_go_on_over_lines_and_what_follows_belongs_to_the_whole() -> None:
    class Told(Struct):
        """Something.

        colour: red or
            green.

        And more.
        """

        colour: str

    assert summary_of(Told) == "Something. And more."
    assert meanings_of(Told) == {"colour": "red or green."}


def test_every_name_of_expressions_has_a_meaning() -> None:
    empty = schema.Policy(policy=1, title="")
    assert scope.MEANINGS.keys() == scope.variables(empty).keys()
    assert scope.FACT_MEANINGS.keys() == scope.fact_variables(empty).keys()


def test_every_fixed_word_is_on_the_page() -> None:
    page = reference()
    for name in (*ENTRY_KINDS, *EFFECTS, *PENALTIES, *scope.DATA, *COMMON_NAMES):
        assert f"`{name}`" in page, name
    for name in standard_functions("CNY"):
        assert f"{name}(…)" in page, name
    assert KINDS.keys() == ENTRY_KINDS
    assert PARTS.keys() == COMMON_NAMES


def test_editors_show_the_meaning_of_a_key() -> None:
    clock = json_schema()["$defs"]["Clock"]
    assert clock["description"] == "Time counted towards one deadline."
    assert clock["properties"]["start"]["description"] == "what starts it."
    assert clock["properties"]["clause"]["description"].startswith("clause or clauses")
