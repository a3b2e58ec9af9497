"""`recourse tenant …`: organisations that subscribe."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from services.cli.client import Access, ask
from services.cli.output import note, say, say_json, table

app = App(name="tenant", help="Tenants: create, list. Needs the operator's key.")


@app.command
def create(
    slug: str,
    /,
    *,
    name: str | None = None,
    zone: str = "Asia/Shanghai",
    sandbox: Annotated[bool, Parameter(negative="")] = False,
    language: str = "en",
    access: Access | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Subscribe an organisation and print its first administrator's key: once, since it is stored nowhere.

    Args:
        slug: short name for addresses: lower case, digits, hyphens.
        name: full name; default: the slug.
        zone: IANA time zone of its offices.
        sandbox: with a test clock that its administrator advances.
        language: of what the system writes for people.
        json: print the answer as JSON.
    """
    body = {"slug": slug, "name": name or slug, "zone": zone, "sandbox": sandbox, "language": language}
    created = ask(access or Access(), "POST", "/v1/tenants", body=body)
    if json:
        say_json(created)
        return
    note(f"Tenant {slug} ({created['tenant']['tenant_id']}). Its administrator's key, shown once:")
    say(created["admin_key"])


@app.command(name="list")
def list_(*, access: Access | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """All tenants.

    Args:
        json: print them as JSON.
    """
    found = ask(access or Access(), "GET", "/v1/tenants")["items"]
    if json:
        say_json(found)
        return
    rows = [
        (each["slug"], each["name"], "sandbox" if each["sandbox"] else "live", each["active"], each["tenant_id"])
        for each in found
    ]
    say(table(("SLUG", "NAME", "KIND", "ACTIVE", "ID"), rows))
