"""Refusals that a caller can understand. Only `shared/problems.py` knows which HTTP status each kind has."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one field: `pointer` is RFC 6901 into the body ("/complainant/phone"); "" is the body as a whole."""

    pointer: str
    detail: str
    suggestion: str | None = None  # the name that was probably meant


class DomainError(Exception):
    """A refusal the caller can understand; never a bug, never an outage.

    Raise a kind below or a subclass of one. `detail` is for people and may vary, `members` become members of the problem document
    (`rule="R09.3", current_version=4`); neither may hold personal data. `retry_after_seconds` also becomes the Retry-After header.
    """

    slug: ClassVar[str] = "refused"  # stable, kebab-case; clients match on it
    title: ClassVar[str] = "The request is refused."  # the same text every time

    def __init__(
        self,
        detail: str = "",
        *,
        errors: list[FieldError] | tuple[FieldError, ...] = (),
        retry_after_seconds: float | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds
        self.members = members


class MalformedError(DomainError):
    """The request cannot be read, or does not fit its schema."""

    slug = "malformed"
    title = "The request does not fit its schema."


class InvalidError(DomainError):
    """It reads well, and is against a rule."""

    slug = "invalid"
    title = "The request breaks a rule."


class UnauthorizedError(DomainError):
    slug = "unauthorized"
    title = "The request carries no valid credential."


class ForbiddenError(DomainError):
    slug = "forbidden"
    title = "The credential does not permit this."


class NotFoundError(DomainError):
    """Not there, or another tenant's: the answer is the same to the byte."""

    slug = "not-found"
    title = "There is nothing here."


class ConflictError(DomainError):
    slug = "conflict"
    title = "The request conflicts with the present state."


class PreconditionFailedError(DomainError):
    slug = "precondition-failed"
    title = "The resource has changed since it was read."


class TooManyError(DomainError):
    slug = "too-many-requests"
    title = "Too many requests."


class TooLargeError(DomainError):
    slug = "too-large"
    title = "The request is too large."


class UnsupportedMediaError(DomainError):
    slug = "unsupported-media-type"
    title = "The content type is not supported."


class UnavailableError(DomainError):
    """Something we depend on does not answer; the same request may succeed later."""

    slug = "unavailable"
    title = "The service cannot answer just now."


class NotYetError(Exception):
    """A message came before what it needs. Raised by handlers; the message is tried again for longer than a failing one."""
