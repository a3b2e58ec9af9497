"""Settings from the environment: what is missing or wrong is named, secrets never show."""

from __future__ import annotations

import pytest

from shared.settings import Secret, ServiceSettings, SettingsError, load

GOOD = {
    "RECOURSE_DATABASE_URL": "postgresql://127.0.0.1:5432/recourse",
    "RECOURSE_NATS_URL": "nats://127.0.0.1:4222",
    "RECOURSE_DATABASE_PASSWORD_SLA_API": "p1",
    "RECOURSE_DATABASE_PASSWORD_SLA_WORKER": "p2",
    "RECOURSE_NATS_PASSWORD_SLA": "p3",
    "RECOURSE_SLA_PORT": "8003",
}


class WithKey(ServiceSettings, frozen=True, kw_only=True):
    master_key: Secret
    tolerance_seconds: float = 5.0


def test_settings_are_read_with_their_types() -> None:
    settings = load(
        ServiceSettings,
        "sla",
        {**GOOD, "RECOURSE_REQUIRE_DURABLE": "false", "RECOURSE_EGRESS_ALLOW": "127.0.0.1:*, h:25"},
    )
    assert (settings.service, settings.port, settings.require_durable) == ("sla", 8003, False)
    assert settings.egress_allow == ("127.0.0.1:*", "h:25")
    assert (settings.api_password, settings.worker_password, settings.nats_password) == ("p1", "p2", "p3")


def test_a_services_own_variable_goes_before_the_common_one() -> None:
    both = {**GOOD, "RECOURSE_OUTBOX_BATCH": "10", "RECOURSE_SLA_OUTBOX_BATCH": "20"}
    assert load(ServiceSettings, "sla", both).outbox_batch == 20
    assert load(ServiceSettings, "intake", both).outbox_batch == 10


def test_another_services_secrets_and_port_are_not_taken() -> None:
    settings = load(ServiceSettings, "notify", GOOD)
    assert (settings.api_password, settings.nats_password, settings.port) == (None, None, 0)


def test_everything_that_is_missing_or_wrong_is_named_at_once_and_no_value_is_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            WithKey,
            "sla",
            {"RECOURSE_NATS_URL": "x", "RECOURSE_SLA_PORT": "secret-port", "RECOURSE_TOLERANCE_SECONDS": "soon"},
        )
    text = str(caught.value)
    assert "RECOURSE_DATABASE_URL is not set" in text
    assert "RECOURSE_MASTER_KEY is not set" in text
    assert "RECOURSE_SLA_PORT does not fit: expected int" in text
    assert "RECOURSE_TOLERANCE_SECONDS does not fit: expected float" in text
    assert "secret-port" not in text


def test_an_empty_variable_counts_as_missing() -> None:
    with pytest.raises(SettingsError, match="RECOURSE_NATS_URL"):
        load(ServiceSettings, "sla", {**GOOD, "RECOURSE_NATS_URL": ""})


def test_secrets_do_not_show_in_a_printed_struct() -> None:
    settings = load(WithKey, "sla", {**GOOD, "RECOURSE_MASTER_KEY": "kekekekek"})
    for secret in ("p1", "p2", "p3", "kekekekek"):
        assert secret not in repr(settings)
        assert secret not in f"{settings!r}"
    assert settings.master_key == "kekekekek"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECOURSE_INBOX_RETENTION_DAYS", "13"),
        ("RECOURSE_OUTBOX_RETENTION_DAYS", "14"),
        ("RECOURSE_IDEMPOTENCY_RETENTION_DAYS", "6"),
        ("RECOURSE_COMMAND_SECONDS", "3.1"),
        ("RECOURSE_ACQUIRE_SECONDS", "0"),
        ("RECOURSE_OUTBOX_BATCH", "1001"),
    ],
)
def test_settings_that_would_lose_repeat_or_hang_are_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match="must be"):
        load(ServiceSettings, "sla", {**GOOD, name: value})
    load(ServiceSettings, "sla", {**GOOD, name: value, "RECOURSE_REQUIRE_DURABLE": "false"})
