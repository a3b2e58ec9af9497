"""Who calls, and what they may do. Keys look like `rk_<credential id, 32 hex>_<43 characters>`; only the hash of the
last part is stored.

Every route carries one guard: `requires(...)` with the roles it is for, or `public(...)` with the reason why anyone
may call it. A route with neither stops the start (`check_guarded`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler

from shared.body import header
from shared.engine.model import Actor
from shared.errors import ForbiddenError, TooLargeError, UnauthorizedError
from shared.ids import OPERATOR, id_of
from shared.messages.intake import Limits

Role = Literal["operator", "admin", "supervisor", "handler", "auditor", "integration"]
ROLES: frozenset[str] = frozenset(("operator", "admin", "supervisor", "handler", "auditor", "integration"))
_KEY = re.compile(r"rk_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever the credential stands for. The tenant comes from here and from nowhere else."""

    tenant_id: UUID
    role: Role
    name: str
    credential_id: UUID
    staff_id: str | None = None
    sees_personal_data: bool = False
    limits: Limits = Limits()
    sandbox: bool = False

    @property
    def is_operator(self) -> bool:
        return self.role == "operator" and self.tenant_id == OPERATOR

    @property
    def actor_id(self) -> str:
        """Who stands in a timeline as the one who did it: the person, or else the credential's role and id."""
        return self.staff_id or f"{self.role}:{self.credential_id}"

    def actor(self, roles: tuple[str, ...] = (), unit: str | None = None) -> Actor:
        """Return the writer of an entry: `roles` are the person's roles and units; the credential's own role is added."""
        return Actor(id=self.actor_id, roles=tuple(dict.fromkeys((*roles, self.role))), unit=unit)


def new_key(credential_id: UUID) -> tuple[str, str]:
    """Return a new key, to be shown once, and the hash to be stored."""
    secret = secrets.token_urlsafe(32)
    return f"rk_{credential_id.hex}_{secret}", key_hash(secret)


def key_hash(secret: str) -> str:
    """SHA-256 in hex. The secret has 256 random bits, so there is nothing for a slow hash to protect."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_key(key: str) -> tuple[UUID, str] | None:
    """Return the credential's id and the secret, or None for anything that is no key of ours."""
    match = _KEY.fullmatch(key)
    return (id_of(match[1]), match[2]) if match else None


def matches(secret: str, stored_hash: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(key_hash(secret), stored_hash)


class Authenticator(Protocol):
    """What a service gives its guards: `shared.service` puts one into the application's state as `authenticator`."""

    async def authenticate(self, key: str) -> Caller:
        """Raise UnauthorizedError unless the key is valid now."""

    def admit(self, caller: Caller) -> None:
        """Raise TooManyError when the caller's tenant is over its rate."""


class Guard:
    """Lets callers of certain roles pass, and leaves the Caller in the connection's state."""

    def __init__(self, roles: frozenset[str], reason: str | None) -> None:
        self.roles = roles
        self.reason = reason  # why the route is public

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if self.reason is not None:
            return
        scheme, _space, key = (header(connection.scope, b"authorization") or b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise UnauthorizedError("Send the API key as 'Authorization: Bearer rk_…'.")
        authenticator: Authenticator = connection.app.state.authenticator
        caller = await authenticator.authenticate(key.strip())
        connection.scope["state"]["caller"] = caller
        if caller.role not in self.roles or (caller.role == "operator") != (caller.tenant_id == OPERATOR):
            raise ForbiddenError(f"This needs the role {' or '.join(sorted(self.roles))}; yours is {caller.role}.")
        authenticator.admit(caller)
        length = header(connection.scope, b"content-length") or b"0"
        if length.isdigit() and int(length) > max(caller.limits.body_bytes, _route_limit(connection)):
            raise TooLargeError(f"The plan allows bodies of {caller.limits.body_bytes} bytes.")


def _route_limit(connection: ASGIConnection[Any, Any, Any, Any]) -> int:
    """A route may take more than the plan's size: `opt={"body_bytes": …}`, for imports and attachments."""
    return int(connection.route_handler.opt.get("body_bytes", 0))


def requires(*roles: Role) -> Guard:
    """A guard for `guards=[…]`: authenticates, and lets only these roles pass."""
    unknown = set(roles) - ROLES
    if unknown or not roles:
        raise ValueError(f"unknown roles: {', '.join(sorted(unknown))}" if unknown else "name at least one role")
    return Guard(frozenset(roles), None)


def public(reason: str) -> Guard:
    """A guard for a route without an API key; `reason` says what protects it instead ("signed webhook", "no data")."""
    return Guard(frozenset(), reason)


class UnguardedRouteError(Exception):
    """A route says neither who may call it nor why everybody may."""


def check_guarded(app: Litestar) -> None:
    """Raise UnguardedRouteError unless every route has exactly one guard of ours: what nobody thought about is denied."""
    unguarded = []
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if isinstance(handler, HTTPRouteHandler) and handler.http_methods == {"OPTIONS"}:
                continue
            if len(guards_of(handler)) != 1:
                unguarded.append(f"{'/'.join(sorted(handler.http_methods))} {route.path}")
        if not hasattr(route, "route_handlers"):
            unguarded.append(f"{type(route).__name__} {route.path}")
    if unguarded:
        raise UnguardedRouteError(f"These routes need requires(...) or public(...): {', '.join(sorted(unguarded))}")


def guards_of(handler: BaseRouteHandler) -> list[Guard]:
    """Return the guards of ours on a route; for the check above and for tests that go through every route and role."""
    found: Iterable[Any] = handler.resolve_guards()
    return [guard for each in found if isinstance(guard := getattr(each, "func", each), Guard)]
