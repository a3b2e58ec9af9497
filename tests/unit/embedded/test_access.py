"""The allow-list of NATS, as rendered; tests/integration/embedded tries it on the server."""

from __future__ import annotations

import pytest

from shared.embedded.access import (
    OPERATOR,
    SERVICES,
    USERS,
    durables_of,
    permissions_of,
    render_config,
    stream_of,
)
from shared.messages import message_types

PASSWORDS = {user: f"secret-of-{user}" for user in USERS}


def a_config(**changes: str) -> str:
    return render_config(PASSWORDS | changes, store="/data", port=4222, monitor="127.0.0.1:8222", max_file=1_000_000)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_publishes_under_its_own_name_only(service: str) -> None:
    events = {subject for subject in permissions_of(service).publish if not subject.startswith(("$JS.", "vault."))}
    assert events == {f"{service}.v1.>"}


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_is_granted_the_whole_of_jetstream(service: str) -> None:
    for subject in permissions_of(service).publish:
        if subject.startswith("$JS.API.STREAM."):
            assert subject.endswith(f".{stream_of(service)}")
        assert not subject.startswith(("$JS.API.>", "$JS.>", "$SYS", "$KV", "$O."))
        assert not any(verb in subject for verb in ("PURGE", "DELETE", "RESTORE", "SNAPSHOT", "LEADER", "PEER"))


@pytest.mark.parametrize("service", SERVICES)
def test_every_consumer_a_service_may_touch_bears_its_name(service: str) -> None:
    for subject in permissions_of(service).publish:
        if ".CONSUMER." in subject or subject.startswith("$JS.ACK."):
            assert f".{service}-on-" in subject, subject


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_hears_its_own_inbox_and_no_other(service: str) -> None:
    inboxes = [subject for subject in permissions_of(service).subscribe if subject.startswith("_INBOX")]
    assert inboxes == [f"_INBOX_{service}.>"]


def test_only_notify_asks_the_vault_and_only_its_keepers_answer() -> None:
    asks = {service for service in SERVICES if "vault.v1.>" in permissions_of(service).publish}
    answers = {service for service in SERVICES if permissions_of(service).answers}
    assert asks == {"notify"}
    assert answers == {"intake", "routing"}
    assert "vault.v1.>" in permissions_of("intake").subscribe
    assert [subject for subject in permissions_of("routing").subscribe if "vault" in subject] == ["vault.v1.staff"]


def test_each_declared_message_may_be_consumed_by_every_service() -> None:
    nouns = {name.split(".")[2] for name in message_types()}
    assert {"entry", "complaint", "tenant"} <= nouns
    for service in SERVICES:
        assert {f"{service}-on-{noun}" for noun in nouns} <= set(durables_of(service))


def test_only_the_operator_may_do_everything() -> None:
    assert [user for user in USERS if ">" in permissions_of(user).publish] == [OPERATOR]


def test_an_unknown_user_has_no_permissions() -> None:
    with pytest.raises(ValueError, match="mallory"):
        permissions_of("mallory")


def test_the_server_writes_to_the_disk_before_it_acknowledges() -> None:
    assert "sync_interval: always" in a_config()


def test_a_password_is_quoted_and_a_variable_is_not() -> None:
    config = a_config(intake='a"b', sla="$SLA_PASSWORD")
    assert r'password: "a\"b"' in config
    assert "password: $SLA_PASSWORD\n" in config
