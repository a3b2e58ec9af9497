"""What the documents say of the code is so: links lead somewhere, and nothing that they list is missing or gone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.gateway.settings import GatewaySettings
from services.intake.settings import IntakeSettings
from services.notify.settings import NotifySettings
from services.reporting.settings import ReportingSettings
from services.routing.settings import RoutingSettings
from services.sla.settings import SlaSettings
from shared.embedded.access import SERVICES
from shared.messages import message_types
from shared.settings import _names
from shared.telemetry import Metrics

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/*/README.md"), *ROOT.glob("shared/README.md")]
)
SETTINGS: dict[str, type[Any]] = {
    "intake": IntakeSettings,
    "routing": RoutingSettings,
    "sla": SlaSettings,
    "notify": NotifySettings,
    "reporting": ReportingSettings,
    "gateway": GatewaySettings,
}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (document.parent / target).exists(), target


def test_every_subject_is_explained() -> None:
    listed = set(re.findall(r"`([a-z]+\.v1\.\{tenant_id\}\.[a-z.]+)`", text("docs/architecture.md")))
    assert listed == {kind.SUBJECT for kind in message_types().values()}


def test_every_table_is_listed_with_its_service() -> None:
    page = text("docs/architecture.md")
    rows = dict(re.findall(r"^\| \[(\w+)\]\([^)]*\) \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE))
    assert set(rows) == set(SERVICES)
    for service, listed in rows.items():
        assert set(re.findall(r"`(\w+)`", listed)) == tables(ROOT / "services" / service / "migrations"), service
    common = page.partition("Every service has besides")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", common)) == tables(ROOT / "shared" / "migrations")


def tables(folder: Path) -> set[str]:
    """The tables that migrations leave behind."""
    found: set[str] = set()
    for file in sorted(folder.glob("*.sql")):
        for verb, name in re.findall(
            r'^(CREATE|DROP) TABLE (?:IF \w+ (?:NOT )?\w+ )?"?(\w+)"?', file.read_text(encoding="utf-8"), re.MULTILINE
        ):
            found = found | {name} if verb == "CREATE" else found - {name}
    return found


def test_every_setting_is_explained_and_no_other() -> None:
    page = text("docs/operations.md").partition("## Settings")[2].partition("### migrate")[0]
    listed = set(re.findall(r"^\| `(RECOURSE_[^`]+)`", page, re.MULTILINE))
    known = {
        _names(field.name, service)[-1].replace(service.upper(), "<SERVICE>" if service != "gateway" else "GATEWAY")
        for service, kind in SETTINGS.items()
        for field in msgspec.structs.fields(kind)
        if field.name != "service"
    }
    known = {name for name in known if name != "RECOURSE_<SERVICE>_URL"} | {
        f"RECOURSE_{service.upper()}_URL" for service in SERVICES
    }
    assert listed == known


def test_metrics_to_watch_exist() -> None:
    mentioned = re.findall(r"`(recourse_\w+)", text("docs/operations.md"))
    assert len(mentioned) >= 4
    rendered = Metrics("any").render().decode()
    for name in mentioned:
        assert f"# TYPE {name} " in rendered, name
