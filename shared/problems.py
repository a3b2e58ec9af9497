"""RFC 9457 problem details: the one place that knows which HTTP status each kind of refusal has, and how any failure
is answered.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, ValidationException
from litestar.utils.scope.state import ScopeState

from shared import telemetry
from shared.body import BodyMissingError
from shared.database import is_outage
from shared.errors import (
    ConflictError,
    DomainError,
    FieldError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    NotFoundError,
    PreconditionFailedError,
    TooLargeError,
    TooManyError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaError,
)

CONTENT_TYPE = "application/problem+json"
STATUS: dict[type[DomainError], int] = {
    MalformedError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    PreconditionFailedError: 412,
    TooLargeError: 413,
    UnsupportedMediaError: 415,
    InvalidError: 422,
    TooManyError: 429,
    UnavailableError: 503,
}
RESERVED = frozenset(("type", "title", "status", "detail", "instance", "errors", "trace_id"))

log = structlog.get_logger()


class MethodNotAllowedError(DomainError):
    slug = "method-not-allowed"
    title = "The resource does not answer this method."


class InternalError(DomainError):
    slug = "internal"
    title = "Something went wrong on our side."


STATUS[MethodNotAllowedError] = 405
STATUS[InternalError] = 500


class Problem(msgspec.Struct, omit_defaults=True):
    """A problem document as it is described in OpenAPI; kinds of problem may have further members."""

    type: str
    title: str
    status: int
    detail: str = ""
    trace_id: str | None = None
    errors: list[FieldError] = []


def status_of(error: DomainError | type[DomainError]) -> int:
    """Return the HTTP status of a refusal's kind."""
    kind = error if isinstance(error, type) else type(error)
    return next((STATUS[each] for each in kind.__mro__ if each in STATUS), 422)


def document(error: DomainError) -> dict[str, Any]:
    """Return the problem document of a refusal."""
    body: dict[str, Any] = {"type": f"/problems/{error.slug}", "title": error.title, "status": status_of(error)}
    if error.detail:
        body["detail"] = error.detail
    if error.errors:
        body["errors"] = [msgspec.to_builtins(each) for each in error.errors]
    for name, value in error.members.items():
        body[f"{name}_" if name in RESERVED else name] = msgspec.to_builtins(value, str_keys=True)
    trace_id = telemetry.trace_id()
    if trace_id is not None and body["status"] >= 500:  # elsewhere the answer depends on nothing but the refusal
        body["trace_id"] = trace_id
    return body


def response(error: DomainError) -> Response[bytes]:
    """Return the answer to a refusal."""
    headers: dict[str, str] = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = 'Bearer realm="recourse"'
    return Response(
        msgspec.json.encode(document(error)),
        status_code=status_of(error),
        headers=headers,
        media_type=CONTENT_TYPE,
    )


def refusal_of(request: Request[Any, Any, Any], error: Exception) -> DomainError:
    """Return the refusal that stands for any exception of a request. Bugs and outages tell nothing of the inside."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, ValidationException):
        if _lacks_body(request):
            return BodyMissingError()
        return MalformedError("A parameter does not fit.", errors=_parameters(error))
    if isinstance(error, MethodNotAllowedException):
        return MethodNotAllowedError()
    if isinstance(error, HTTPException):
        return _of_http(error)
    if is_outage(error):
        log.warning("outage_answered", **telemetry.describe(error))
        return UnavailableError("A server that we depend on does not answer in time.", retry_after_seconds=2)
    log.error("request_failed", **telemetry.describe(error))
    return InternalError("The failure has been logged under the trace id.")


def _lacks_body(request: Request[Any, Any, Any]) -> bool:
    """Litestar leaves an empty body out, and then misses the handler's argument."""
    wanted = getattr(request.route_handler, "parsed_data_field", None) is not None
    return wanted and ScopeState.from_scope(request.scope).body == b""


def _of_http(error: HTTPException) -> DomainError:
    kinds: dict[int, type[DomainError]] = {
        400: MalformedError,
        401: UnauthorizedError,
        403: ForbiddenError,
        404: NotFoundError,
        405: MethodNotAllowedError,
        413: TooLargeError,
        415: UnsupportedMediaError,
        429: TooManyError,
        503: UnavailableError,
    }
    kind = kinds.get(error.status_code)
    if kind is None:
        return MalformedError() if error.status_code < 500 else InternalError()
    return kind()


def _parameters(error: ValidationException) -> list[FieldError]:
    found = []
    for each in error.extra if isinstance(error.extra, list) else []:
        key = str(each.get("key", ""))
        where = {"query": "/query/", "path": "/path/", "header": "/header/", "cookie": "/cookie/"}.get(
            str(getattr(each.get("source"), "value", each.get("source"))), "/"
        )
        found.append(FieldError(where + key, telemetry.without_values(str(each.get("message", "")))))
    return found


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The exception handler of every application."""
    return response(refusal_of(request, error))
