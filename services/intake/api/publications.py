"""Policies and calendars: what a tenant's administrator publishes."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from services.intake.domain.policies import template, templates
from services.intake.domain.vocabulary import near
from services.intake.publishing import Checked, Effect, check, lock_next_version, publish, publish_calendar
from services.intake.refusals import SecondAdminError
from services.intake.repository import publications as rows
from services.intake.repository.publications import CalendarRow, PolicyHead, PolicyRow, ProposalHead, ProposalRow
from shared.auth import Caller, requires
from shared.database import Tx
from shared.engine.calendar.section import CalendarSpec, spec_problems
from shared.errors import ConflictError, FieldError, InvalidError, NotFoundError
from shared.ids import new_id
from shared.policy.documents import LARGEST, escape
from shared.policy.problems import PolicyProblem
from shared.service import Runtime
from shared.time_source import now_in

_READERS: Final = ("admin", "supervisor", "handler", "auditor", "integration")
_BODY: Final = 2 * LARGEST + 65_536  # YAML inside JSON takes two characters for each quotation mark and line end


class CalendarInvalidError(InvalidError):
    slug = "calendar-invalid"
    title = "The calendar cannot work as it is written."


class ProposalDecidedError(ConflictError):
    slug = "proposal-decided"
    title = "The proposal has been decided."


class Publication(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy to be published: the document itself, as an object or as YAML text, or the name of a template.

    effect: what it does to open complaints: they keep theirs, follow this one from now on, or as if it had always been.
    base_version: the version that was looked at; another one published since is a conflict.
    validate_only: say what is wrong and publish nothing.
    """

    document: dict[str, Any] | str | None = None
    template: Annotated[str, Meta(max_length=80)] | None = None
    settings: dict[str, Any] = {}
    effect: Effect = "keep"
    reason: Annotated[str, Meta(max_length=500)] = ""
    base_version: int | None = None
    validate_only: bool = False


class Published(Struct, frozen=True, kw_only=True):
    """What became of a publication. `state`: published, waiting for another administrator, or only checked."""

    state: str
    version: int | None
    proposal_id: UUID | None
    effect: str
    sha256: str
    warnings: list[PolicyProblem]


class PolicyView(Struct, frozen=True, kw_only=True):
    version: int
    effect: str
    published_by: str
    reason: str
    sha256: str
    published_at: datetime
    document: dict[str, Any]
    settings: dict[str, Any]


class PolicyPage(Struct, frozen=True, kw_only=True):
    items: list[PolicyHead]
    next: int | None


class ProposalPage(Struct, frozen=True, kw_only=True):
    items: list[ProposalHead]


class TemplatePage(Struct, frozen=True, kw_only=True):
    items: list[str]


class CalendarPublication(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A revision of one named calendar; `moves_running`: running clocks follow it too."""

    name: Annotated[str, Meta(pattern=r"^[^\s=][^\n]*$", max_length=120)]
    spec: CalendarSpec
    moves_running: bool = False


class CalendarView(Struct, frozen=True, kw_only=True):
    name: str
    revision: int
    spec: dict[str, Any]
    announced_through: date | None
    moves_running: bool
    published_at: datetime


class CalendarPage(Struct, frozen=True, kw_only=True):
    items: list[CalendarView]


@post(
    "/v1/policies:publish",
    guards=[requires("admin")],
    status_code=201,
    request_max_body_size=_BODY,
    opt={"body_bytes": _BODY},
    operation_id="publish_policy",
)
async def publish_policy(
    data: JSONBody[Publication], caller: NamedDependency[Caller], runtime: NamedDependency[Runtime[Any]]
) -> Response[Published]:
    """Publish a policy; 201 published, 202 waiting for a second administrator, 200 only checked."""
    checked = await check(_source(data), data.settings)
    if data.validate_only:
        return _answer(200, "valid", checked, data.effect)
    if not data.reason.strip():
        raise InvalidError("Say why.", errors=[FieldError("/reason", "is needed")])
    tenant = await runtime.reference.tenant(caller.tenant_id)
    async with runtime.db.api_tx(caller.tenant_id) as tx:
        if tenant.two_admins:
            proposal_id = await _propose(tx, data, checked, caller)
            return _answer(202, "waiting", checked, data.effect, proposal_id=proposal_id)
        row = await publish(
            tx,
            checked,
            effect=data.effect,
            reason=data.reason,
            published_by=caller.actor_id,
            base_version=data.base_version,
        )
        tx.after_commit(lambda: runtime.reference.forget(caller.tenant_id))
    return _answer(201, "published", checked, data.effect, version=row.version)


@post(
    "/v1/policies/proposals/{proposal_id:uuid}/approve",
    guards=[requires("admin")],
    status_code=201,
    operation_id="approve_policy",
)
async def approve_policy(
    proposal_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[Published]:
    """Publish what another administrator proposed."""
    proposal = await _waiting(tx, proposal_id)
    if proposal.proposed_by == caller.credential_id:
        raise SecondAdminError("Whoever proposed a policy cannot also approve it.")
    checked = await check(proposal.document, proposal.settings)
    effect = msgspec.convert(proposal.effect, Effect)
    row = await publish(
        tx,
        checked,
        effect=effect,
        reason=proposal.reason,
        published_by=caller.actor_id,
        base_version=proposal.base_version,
    )
    await rows.decide_proposal(tx, tx.tenant_id, proposal_id, "published", caller.credential_id, row.published_at)
    tx.after_commit(lambda: runtime.reference.forget(caller.tenant_id))
    return _answer(201, "published", checked, effect, version=row.version, proposal_id=proposal_id)


@post(
    "/v1/policies/proposals/{proposal_id:uuid}/withdraw",
    guards=[requires("admin")],
    status_code=204,
    operation_id="withdraw_policy",
)
async def withdraw_policy(
    proposal_id: FromPath[UUID], caller: NamedDependency[Caller], tx: NamedDependency[Tx]
) -> None:
    """Take a proposal back, one's own or another's."""
    await _waiting(tx, proposal_id)
    await rows.decide_proposal(tx, tx.tenant_id, proposal_id, "withdrawn", caller.credential_id, await now_in(tx))


@get("/v1/policies/proposals", guards=[requires("admin", "auditor")], operation_id="list_proposals")
async def list_proposals(tx: NamedDependency[Tx]) -> ProposalPage:
    """Policies that wait for a second administrator."""
    return ProposalPage(items=await rows.proposals(tx, tx.tenant_id))


@get("/v1/policies", guards=[requires(*_READERS)], operation_id="list_policies")
async def list_policies(
    tx: NamedDependency[Tx],
    before: Annotated[int | None, QueryParameter()] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
) -> PolicyPage:
    """The published versions, newest first."""
    found = await rows.policies(tx, tx.tenant_id, min(before or 2**31 - 1, 2**31 - 1), limit)
    return PolicyPage(items=found, next=found[-1].version if len(found) == limit else None)


@get("/v1/policies/current", guards=[requires(*_READERS)], operation_id="get_current_policy")
async def get_current_policy(tx: NamedDependency[Tx]) -> PolicyView:
    """The version that complaints are received under now."""
    return _policy(await rows.policy(tx, tx.tenant_id, None))


@get("/v1/policies/{version:int}", guards=[requires(*_READERS)], operation_id="get_policy")
async def get_policy(version: FromPath[int], tx: NamedDependency[Tx]) -> PolicyView:
    """One published version."""
    if not 1 <= version < 2**31:
        raise NotFoundError()
    return _policy(await rows.policy(tx, tx.tenant_id, version))


@get("/v1/policies/templates", guards=[requires("operator", *_READERS)], operation_id="list_templates")
async def list_templates() -> TemplatePage:
    """Ready-made policies that a tenant can start from."""
    return TemplatePage(items=list(templates()))


@post("/v1/calendars:publish", guards=[requires("admin")], status_code=201, operation_id="publish_calendar")
async def publish_one_calendar(
    data: JSONBody[CalendarPublication], tx: NamedDependency[Tx], runtime: NamedDependency[Runtime[Any]]
) -> CalendarView:
    """Publish a revision of a calendar: next year's holidays, say."""
    problems = list(spec_problems(data.spec))
    if problems:
        raise CalendarInvalidError(
            errors=[
                FieldError(
                    "/spec" + "".join(f"/{escape(str(part))}" for part in problem.path),
                    problem.message,
                    problem.suggestion or None,
                )
                for problem in problems
            ]
        )
    spec = msgspec.to_builtins(data.spec, builtin_types=(date,), str_keys=False)
    spec["exceptions"] = {str(day): hours for day, hours in spec["exceptions"].items()}
    row = await publish_calendar(tx, data.name, spec, moves_running=data.moves_running)
    tx.after_commit(lambda: runtime.reference.forget(tx.tenant_id))
    return _calendar(row)


@get("/v1/calendars", guards=[requires(*_READERS)], operation_id="list_calendars")
async def list_calendars(tx: NamedDependency[Tx]) -> CalendarPage:
    """Calendars published apart from a policy, by name, the newest revision first."""
    return CalendarPage(items=[_calendar(row) for row in await rows.calendars(tx, tx.tenant_id)])


def _source(data: Publication) -> dict[str, Any] | str:
    if (data.document is None) == (data.template is None):
        raise InvalidError(
            "Give a document or a template.", errors=[FieldError("/document", "either this or /template")]
        )
    if data.template is None:
        assert data.document is not None
        return data.document
    text = template(data.template)
    if text is None:
        raise InvalidError(
            errors=[FieldError("/template", "there is no such template", near(data.template, templates()) or None)]
        )
    return text


async def _propose(tx: Tx, data: JSONBody[Publication], checked: Checked, caller: Caller) -> UUID:
    proposal = ProposalRow(
        proposal_id=new_id(),
        base_version=await lock_next_version(tx, data.base_version) - 1,
        document=checked.document,
        settings=checked.settings,
        effect=data.effect,
        reason=data.reason,
        state="waiting",
        proposed_by=caller.credential_id,
        proposed_at=await now_in(tx),
    )
    await rows.add_proposal(tx, tx.tenant_id, proposal)
    return proposal.proposal_id


async def _waiting(tx: Tx, proposal_id: UUID) -> ProposalRow:
    proposal = await rows.lock_proposal(tx, tx.tenant_id, proposal_id)
    if proposal is None:
        raise NotFoundError()
    if proposal.state != "waiting":
        raise ProposalDecidedError(f"It is {proposal.state}.")
    return proposal


def _answer(
    status: int,
    state: str,
    checked: Checked,
    effect: str,
    *,
    version: int | None = None,
    proposal_id: UUID | None = None,
) -> Response[Published]:
    return Response(
        Published(
            state=state,
            version=version,
            proposal_id=proposal_id,
            effect=effect,
            sha256=checked.sha256,
            warnings=checked.warnings,
        ),
        status_code=status,
    )


def _policy(row: PolicyRow | None) -> PolicyView:
    if row is None:
        raise NotFoundError()
    return PolicyView(**{name: getattr(row, name) for name in PolicyView.__struct_fields__})


def _calendar(row: CalendarRow) -> CalendarView:
    return CalendarView(**{name: getattr(row, name) for name in CalendarView.__struct_fields__})


ROUTES: Final = (
    publish_policy,
    approve_policy,
    withdraw_policy,
    list_proposals,
    list_policies,
    get_current_policy,
    get_policy,
    list_templates,
    publish_one_calendar,
    list_calendars,
)
