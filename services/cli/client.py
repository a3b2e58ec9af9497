"""Speaking to a running stack: where it is, with which key, and what its refusals mean for a person."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Parameter

from services.cli.output import CommandError

DEFAULT_URL = "http://127.0.0.1:8080"


@Parameter(name="*")
@dataclass(frozen=True)
class Access:
    """Where to ask, and as whom.

    Parameters:
        url: address of the gateway; default: RECOURSE_URL, else the stack that runs on the data folder.
        key: API key; default: RECOURSE_KEY.
        data: data folder of the stack on this machine.
    """

    url: str | None = None
    key: str | None = None
    data: Path = Path(".recourse")

    @property
    def address(self) -> str:
        found = self.url or os.environ.get("RECOURSE_URL")
        if found is None:
            from services.stack import address_of

            local = address_of(self.data)
            found = local.url if local is not None else DEFAULT_URL
        return found.rstrip("/")


def ask(access: Access, method: str, path: str, *, body: Any = None, keyless: bool = False, **query: Any) -> Any:
    """Send one request and return the decoded answer. CommandError, in a sentence, for whatever is not 2xx."""
    status, answer = ask_for_status(access, method, path, body=body, keyless=keyless, **query)
    if 200 <= status < 300:
        return answer
    raise CommandError(refusal(status, answer))


def ask_for_status(
    access: Access, method: str, path: str, *, body: Any = None, keyless: bool = False, **query: Any
) -> tuple[int, Any]:
    """Send one request; return the status and the decoded answer. CommandError when nobody answers."""
    import httpx
    import msgspec

    headers = {"Content-Type": "application/json"}
    if not keyless:
        key = access.key or os.environ.get("RECOURSE_KEY")
        if not key:
            raise CommandError("This needs an API key: set RECOURSE_KEY, or give --key.")
        headers["Authorization"] = f"Bearer {key}"
    try:
        answer = httpx.request(
            method,
            access.address + path,
            params={name: str(value) for name, value in query.items() if value is not None},
            headers=headers,
            content=None if body is None else msgspec.json.encode(body),
            timeout=httpx.Timeout(75.0, connect=3.0),
            trust_env=False,
        )
    except httpx.InvalidURL:
        raise CommandError(f"{access.address} is no address.") from None
    except httpx.HTTPError:
        raise CommandError(
            f"Nobody answers at {access.address}. Start a stack with `recourse up`, or give --url or RECOURSE_URL."
        ) from None
    try:
        return answer.status_code, msgspec.json.decode(answer.content) if answer.content else None
    except msgspec.DecodeError:
        raise CommandError(
            f"{access.address} does not answer as Recourse does (status {answer.status_code})."
        ) from None


def refusal(status: int, problem: Any) -> str:
    """Return a problem document as one sentence, with what is wrong with which field."""
    if not isinstance(problem, dict):
        return f"It was refused with status {status}."
    said = [str(problem.get("title") or f"It was refused with status {status}.")]
    if problem.get("detail"):
        said.append(str(problem["detail"]))
    for each in problem.get("errors", [])[:10]:
        hint = f" (did you mean {each['suggestion']}?)" if each.get("suggestion") else ""
        said.append(f"{each.get('pointer') or 'the body'}: {each.get('detail')}{hint}.")
    return " ".join(said)
