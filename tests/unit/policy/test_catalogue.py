"""The catalogue names every clause of every written regime once, in both languages, with the same figures in each."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from shared.policy import catalogue

CLAUSES_PER_REGIME = {
    "R01": 2, "R02": 8, "R03": 31, "R04": 16, "R05": 18, "R06": 16, "R07": 21, "R08": 10, "R09": 42, "R10": 6,
    "R11": 15, "R12": 12, "R13": 3, "R14": 14, "R15": 21, "R16": 11, "R17": 16, "R18": 24, "R19": 11, "R20": 33,
    "R21": 13, "R22": 11, "R23": 8, "R24": 6, "R25": 6, "R26": 8, "R27": 10, "R28": 4, "R29": 10, "R30": 4,
    "R31": 10, "R32": 7, "R33": 11, "R34": 8, "R35": 10, "R36": 13, "R37": 12, "R38": 41,
}  # fmt: skip
SENTENCE_WORDS = range(6, 17)
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def amounts(text: str) -> set[str]:
    """Return the figures that stand after ¥ or before `percent` in an English summary; both ends of a range."""
    plain = text.replace(",", "")
    ranged = re.sub(r"¥(\d+)-¥?(\d+)", r"¥\1 ¥\2", plain)
    shares = re.sub(r"(\d+)-(\d+) percent", r"\1 percent \2 percent", ranged)
    return set(re.findall(r"¥(\d+)", shares)) | set(re.findall(r"(\d+) percent", shares))


def test_there_are_522_clauses_in_38_regimes() -> None:
    assert len(catalogue.regimes()) == 38
    assert len(catalogue.clause_ids()) == 522
    assert len(set(catalogue.clause_ids())) == 522


def test_the_regimes_stand_in_order_with_their_number_of_clauses() -> None:
    counted = {regime_id: len(regime.clauses) for regime_id, regime in catalogue.regimes().items()}
    assert list(counted) == list(CLAUSES_PER_REGIME)
    assert counted == CLAUSES_PER_REGIME


@pytest.mark.parametrize("regime_id", CLAUSES_PER_REGIME)
def test_the_clauses_of_a_regime_are_numbered_from_one_without_a_gap(regime_id: str) -> None:
    expected = [f"{regime_id}.{number}" for number in range(1, CLAUSES_PER_REGIME[regime_id] + 1)]
    assert list(catalogue.regimes()[regime_id].clauses) == expected


def test_no_key_is_written_twice_in_the_file() -> None:
    """A YAML reader lets the last of two equal keys win, silently."""
    text = resources.files("shared.policy").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    keys = re.findall(r"^ *(R\d\d(?:\.\d+)?):", text, re.MULTILINE)
    assert len(keys) == len(set(keys)) == 522 + 38


@pytest.mark.parametrize("clause_id", catalogue.clause_ids())
def test_a_summary_is_one_short_sentence_in_each_language(clause_id: str) -> None:
    english, chinese = catalogue.summary(clause_id, "en"), catalogue.summary(clause_id, "zh")
    assert len(english.split()) in SENTENCE_WORDS
    assert english.endswith(".")
    assert not CHINESE.search(english)
    assert chinese.endswith("。")
    assert CHINESE.search(chinese)
    assert "\n" not in english + chinese


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_two_clauses_share_a_summary(lang: catalogue.Language) -> None:
    lines = [catalogue.summary(clause_id, lang) for clause_id in catalogue.clause_ids()]
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("clause_id", [c for c in catalogue.clause_ids() if amounts(catalogue.summary(c))])
def test_amounts_and_percentages_are_the_same_in_both_languages(clause_id: str) -> None:
    chinese = catalogue.summary(clause_id, "zh").replace("一万", "10000")
    assert amounts(catalogue.summary(clause_id)) <= set(re.findall(r"\d+", chinese))


@pytest.mark.parametrize("regime_id", CLAUSES_PER_REGIME)
def test_a_regime_has_a_title_in_both_languages_and_a_kind_of_organisation(regime_id: str) -> None:
    regime = catalogue.regimes()[regime_id]
    assert regime.title.text("en").strip()
    assert CHINESE.search(regime.title.text("zh"))
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", regime.organisation)


def test_titles_tell_the_regimes_apart() -> None:
    assert len({regime.title.en for regime in catalogue.regimes().values()}) == 38
    assert len({regime.title.zh for regime in catalogue.regimes().values()}) == 38


def test_clauses_without_a_usable_text_say_so() -> None:
    assert catalogue.summary("R04.16") == "Heading without text; nothing to enforce."
    assert catalogue.summary("R19.11").startswith("Text breaks off")


def test_an_unknown_clause_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"R04\.99"):
        catalogue.summary("R04.99")


def test_the_catalogue_cannot_be_changed_by_a_reader() -> None:
    with pytest.raises(TypeError):
        catalogue.load().clauses["R04.7"] = catalogue.Summary(en="x", zh="x")  # type: ignore[index]
    assert catalogue.load() is catalogue.load()
