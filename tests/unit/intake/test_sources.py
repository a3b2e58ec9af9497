from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from services.intake.domain.sources import (
    OLD_SECRET_LASTS,
    Secret,
    SourceSettings,
    good_secrets,
    rotated,
    settings_faults,
)

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def test_the_former_secret_is_good_for_a_day_and_not_an_instant_longer() -> None:
    kept = rotated([Secret(secret="old")], "new", NOW)
    assert good_secrets(kept, NOW) == ["new", "old"]
    assert good_secrets(kept, NOW + OLD_SECRET_LASTS - timedelta(microseconds=1)) == ["new", "old"]
    assert good_secrets(kept, NOW + OLD_SECRET_LASTS) == ["new"]


def test_two_secrets_are_good_at_once_and_never_three() -> None:
    kept = rotated(rotated([Secret(secret="a")], "b", NOW), "c", NOW + timedelta(hours=1))
    assert good_secrets(kept, NOW + timedelta(hours=2)) == ["c", "b"]


@pytest.mark.parametrize(
    ("kind", "settings", "pointer"),
    [
        ("email", {"map": {"map": {"text": {"at": "/x"}}}}, "/map"),
        ("webhook", {"columns": {"a": "text"}}, "/columns"),
        ("csv", {"columns": {"a": "tekst"}}, "/columns/a"),
        ("csv", {"takes_automatic": True}, "/takes_automatic"),
        ("webhook", {"map": {"map": {"complainant.fone": {"at": "/x"}}}}, "/map/map/complainant.fone"),
    ],
)
def test_settings_that_mean_nothing_for_the_kind_are_refused(kind: str, settings: dict[str, Any], pointer: str) -> None:
    faults = settings_faults(kind, msgspec.convert(settings, SourceSettings))
    assert [fault.pointer for fault in faults] == [pointer]


def test_settings_that_fit_have_no_fault() -> None:
    columns = {"columns": {"a": "text", "b": "fields.loss_cny", "c": ""}}
    assert settings_faults("csv", msgspec.convert(columns, SourceSettings)) == ()
