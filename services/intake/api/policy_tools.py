"""A policy's workbench over HTTP: check, read, try, compare. Nothing here is stored; every call is bounded and works
off the loop.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody
from msgspec import Struct

from services.intake.repository import publications as rows
from shared.auth import requires
from shared.database import Tx
from shared.engine.case import LoopError
from shared.errors import FieldError, InvalidError, NotFoundError
from shared.policy import coverage as covering
from shared.policy.checking import simulation_of
from shared.policy.compiling import compile_policy
from shared.policy.describing import Sentence, describe
from shared.policy.diffing import Change, diff
from shared.policy.documents import LARGEST
from shared.policy.json_schema import json_schema
from shared.policy.linting import lint
from shared.policy.problems import PolicyError, PolicyProblem
from shared.policy.simulating import Scenario
from shared.policy.template_files import document_of, names

_AUTHORS: Final = ("admin", "supervisor", "auditor", "operator")
_BODY: Final = 2 * LARGEST + 65_536
MOST_EVENTS: Final = 500
LONGEST: Final = timedelta(days=5 * 366)


class PolicyUnfitError(InvalidError):
    slug = "policy-unfit"
    title = "The policy cannot be used as it is written."


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy: the document as an object or YAML text, a template's name or regime, or a published version; none: the
    current one.
    """

    document: dict[str, Any] | str | None = None
    template: str | None = None
    version: int | None = None
    settings: dict[str, Any] = {}


class Lint(Source, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to check."""


class Explain(Source, frozen=True, kw_only=True, forbid_unknown_fields=True):
    lang: Literal["en", "zh"] = "en"


class Simulate(Source, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scenario to run; its own settings and calendar are used."""

    scenario: Scenario
    lang: Literal["en", "zh"] = "en"


class Compare(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    before: Source
    after: Source


class Findings(Struct, frozen=True):
    ok: bool
    problems: list[PolicyProblem]


class Sentences(Struct, frozen=True):
    sentences: list[Sentence]


class Changes(Struct, frozen=True):
    changes: list[Change]


@post(
    "/v1/policies:lint",
    guards=[requires(*_AUTHORS)],
    status_code=200,
    request_max_body_size=_BODY,
    opt={"body_bytes": _BODY},
    operation_id="lint_policy",
)
async def lint_policy(data: JSONBody[Lint], tx: NamedDependency[Tx]) -> Findings:
    """Everything that can never work or was probably not meant, each with its place, the reason and a suggestion."""
    source = await _document(data, tx)
    found = await asyncio.to_thread(lint, source, data.settings)
    return Findings(not found.errors, found.problems)


@post(
    "/v1/policies:explain",
    guards=[requires(*_AUTHORS)],
    status_code=200,
    request_max_body_size=_BODY,
    opt={"body_bytes": _BODY},
    operation_id="explain_policy",
)
async def explain_policy(data: JSONBody[Explain], tx: NamedDependency[Tx]) -> Sentences:
    """The document in plain sentences."""
    source = await _document(data, tx)

    def tell() -> list[Sentence]:
        return describe(compile_policy(source, data.settings), data.lang)

    return Sentences(await _off_the_loop(tell))


@post(
    "/v1/policies:simulate",
    guards=[requires(*_AUTHORS)],
    status_code=200,
    request_max_body_size=_BODY,
    opt={"body_bytes": _BODY},
    operation_id="simulate_policy",
)
async def simulate_policy(data: JSONBody[Simulate], tx: NamedDependency[Tx]) -> dict[str, Any]:
    """Everything that follows from a scenario under the policy, with the reason of each figure; no side effects."""
    scenario = data.scenario
    if len(scenario.events) > MOST_EVENTS or len(scenario.history) > MOST_EVENTS:
        raise InvalidError(
            errors=[FieldError("/scenario/events", f"at most {MOST_EVENTS} events, and as many in the history")]
        )
    try:
        start = scenario.started_at()
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidError(errors=[FieldError("/scenario/complaint/received_at", str(error))]) from None
    if scenario.until - start > LONGEST:
        raise InvalidError(errors=[FieldError("/scenario/until", "at most five years after the start")])
    source = await _document(data, tx)
    found: dict[str, Any] = await _off_the_loop(lambda: simulation_of(scenario, source, data.lang))
    return found


@post(
    "/v1/policies:diff",
    guards=[requires(*_AUTHORS)],
    status_code=200,
    request_max_body_size=2 * _BODY,
    opt={"body_bytes": 2 * _BODY},
    operation_id="diff_policies",
)
async def diff_policies(data: JSONBody[Compare], tx: NamedDependency[Tx]) -> Changes:
    """What changed between two policies, in terms of rules."""
    before, after = await _document(data.before, tx), await _document(data.after, tx)
    return Changes(await _off_the_loop(lambda: diff(_values(before), _values(after))))


@get("/v1/policies/schema", guards=[requires(*_AUTHORS, "handler", "integration")], operation_id="get_policy_schema")
async def get_policy_schema() -> dict[str, Any]:
    """The JSON Schema of policies, for editors."""
    return json_schema()


@get("/v1/policies/coverage", guards=[requires(*_AUTHORS)], operation_id="get_coverage")
async def get_coverage(regime: FromQuery[str | None] = None) -> covering.Coverage:
    """Which rules of the templates carry which clause of the written regimes."""
    found = await asyncio.to_thread(covering.coverage)
    if regime is None:
        return found
    if regime not in found.regimes:
        raise NotFoundError()
    missing = [clause for clause in found.missing if clause.startswith(f"{regime}.")]
    return covering.Coverage(total=len(found.regimes[regime]), missing=missing, regimes={regime: found.regimes[regime]})


async def _off_the_loop(work: Any) -> Any:
    """Do the work in a thread; what is wrong with the policy becomes a refusal with its places."""
    try:
        return await asyncio.to_thread(work)
    except PolicyError as error:
        errors = [FieldError(f"/document{one.path}", one.message, one.suggestion) for one in error.problems[:100]]
        raise PolicyUnfitError(errors=errors) from None
    except LoopError as error:
        raise PolicyUnfitError(str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidError(errors=[FieldError("/scenario", f"{type(error).__name__}: {error}")]) from None


async def _document(source: Source, tx: Tx) -> Any:
    given = [one for one in (source.document, source.template, source.version) if one is not None]
    if len(given) > 1:
        raise InvalidError(errors=[FieldError("/document", "only one of document, template and version")])
    if source.document is not None:
        return source.document
    if source.template is not None:
        regimes = names()
        regime = next((one for one, name in regimes.items() if source.template in (one, name)), None)
        if regime is None:
            raise InvalidError(errors=[FieldError("/template", "there is no such template")])
        return document_of(regime)
    row = await rows.policy(tx, tx.tenant_id, source.version)
    if row is None:
        raise NotFoundError("No such policy has been published.")
    return row.document


def _values(source: Any) -> dict[str, Any]:
    from shared.policy.documents import Document, DocumentError, parse

    if isinstance(source, str):
        try:
            source = parse(source)
        except DocumentError as error:
            raise PolicyError([PolicyProblem(path=error.pointer, message=error.message, code="document")]) from None
    return source.values if isinstance(source, Document) else msgspec.to_builtins(source)


ROUTES: Final = (lint_policy, explain_policy, simulate_policy, diff_policies, get_policy_schema, get_coverage)
