"""What deploy/ holds fits the code: every setting is given, every secret is asked for, NATS's file is current."""

from __future__ import annotations

import base64
import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from services.gateway.settings import settings_of
from services.intake.settings import IntakeSettings
from services.notify.settings import NotifySettings
from services.reporting.settings import ReportingSettings
from services.routing.settings import RoutingSettings
from services.sla.settings import SlaSettings
from shared.embedded.access import SERVICES, USERS
from shared.embedded.environment import database_roles
from shared.embedded.nats import program
from shared.settings import ServiceSettings, load

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
OWN_SETTINGS: dict[str, type[ServiceSettings]] = {
    "intake": IntakeSettings,
    "routing": RoutingSettings,
    "sla": SlaSettings,
    "notify": NotifySettings,
    "reporting": ReportingSettings,
}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::\?[^}]*|:-([^}]*))?\}")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def secrets() -> dict[str, str]:
    scripted = script("new_secrets")
    text = scripted.completed("", scripted.asked_for((DEPLOY / "compose.yaml").read_text()))
    return dict(line.split("=", 1) for line in text.splitlines() if line)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file as the engine sees it, variables filled in."""
    known = secrets()
    text = VARIABLE.sub(lambda found: known.get(found[1]) or found[2] or "", (DEPLOY / "compose.yaml").read_text())
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


@pytest.mark.parametrize("service", SERVICES)
def test_compose_gives_a_service_all_it_needs_and_nobody_elses_secrets(compose: dict[str, Any], service: str) -> None:
    environment: dict[str, str] = compose["services"][service]["environment"]
    settings = load(OWN_SETTINGS.get(service, ServiceSettings), service, environment)
    assert settings.port == 8000
    assert settings.host == "0.0.0.0"
    assert len({settings.api_password, settings.worker_password, settings.nats_password} - {None, ""}) == 3
    assert settings.nats_monitor_url == "http://nats:8222"
    others = [other.upper() for other in SERVICES if other != service]
    secret = [name for name in environment if "PASSWORD" in name or "KEY" in name]
    assert [name for name in secret if any(other in name for other in others)] == []


def test_the_gateway_finds_every_service(compose: dict[str, Any]) -> None:
    settings = settings_of(compose["services"]["gateway"]["environment"])
    assert settings.port == 8000
    assert [settings.url(name) for name in SERVICES] == [f"http://{name}:8000" for name in SERVICES]


def test_master_keys_are_keys_and_differ(compose: dict[str, Any]) -> None:
    keys = [
        base64.b64decode(compose["services"][name]["environment"][f"RECOURSE_{name.upper()}_MASTER_KEY"], validate=True)
        for name in ("intake", "routing", "notify")
    ]
    assert [len(key) for key in keys] == [32, 32, 32]
    assert len(set(keys)) == 3


def test_migrations_know_every_role_s_password(compose: dict[str, Any]) -> None:
    environment = compose["services"]["migrate"]["environment"]
    for role in database_roles():
        assert environment[f"RECOURSE_DATABASE_PASSWORD_{role.upper()}"]
        service = role.rpartition("_")[0]
        own = compose["services"][service]["environment"][f"RECOURSE_DATABASE_PASSWORD_{role.upper()}"]
        assert environment[f"RECOURSE_DATABASE_PASSWORD_{role.upper()}"] == own


def test_nothing_but_the_ways_in_and_the_watchers_is_reachable_and_only_from_this_machine(
    compose: dict[str, Any],
) -> None:
    open_to = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert set(open_to) == {"gateway", "intake", "prometheus", "grafana"}  # intake's is for mail
    assert open_to["intake"] == ["127.0.0.1:2525:2525"]
    assert all(port.startswith("127.0.0.1:") for ports in open_to.values() for port in ports)


def test_every_dependency_and_volume_exists(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]


def test_every_service_is_scraped() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target.partition(":")[0] for target in job["static_configs"][0]["targets"]}
    assert targets == {*SERVICES, "gateway"}


def test_the_configuration_of_nats_is_the_one_that_follows_from_the_messages() -> None:
    assert (DEPLOY / "nats" / "nats.conf").read_text() == script("render_nats").rendered(), "run deploy/render_nats.py"


def test_nats_accepts_its_configuration_with_the_passwords_of_the_environment(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text((DEPLOY / "nats" / "nats.conf").read_text().replace('"/data"', f'"{tmp_path}"'))
    environment = {name: value for name, value in secrets().items() if "NATS" in name}
    assert len(environment) == len(USERS)
    for given, accepted in ((environment, True), ({}, False)):
        checked = subprocess.run(
            [program(), "-t", "-c", config], env=given, capture_output=True, text=True, check=False
        )
        assert (checked.returncode == 0) is accepted, checked.stderr


def test_secrets_in_use_are_kept_when_the_file_is_completed() -> None:
    completed = script("new_secrets").completed("A_SECRET=old\n# note\n", ["ANOTHER", "A_SECRET"])
    lines = completed.splitlines()
    assert lines[:2] == ["A_SECRET=old", "# note"]
    assert len(lines) == 3
    assert lines[2].startswith("ANOTHER=p")
