"""What intake refuses, beside the kinds that every service has."""

from __future__ import annotations

from collections.abc import Iterable

from services.intake.domain.complaint import Fault
from shared.errors import ConflictError, FieldError, InvalidError, NotFoundError, TooManyError


class ComplaintInvalidError(InvalidError):
    slug = "complaint-invalid"
    title = "The complaint does not fit the tenant's policy."

    @classmethod
    def of(cls, faults: Iterable[Fault], below: str = "") -> ComplaintInvalidError:
        """Tell every fault; `below` is where in the body the complaint stands."""
        return cls(errors=field_errors(faults, below))


class NoPolicyError(ConflictError):
    slug = "no-policy"
    title = "The tenant has not published a policy yet."


class PolicyInvalidError(InvalidError):
    slug = "policy-invalid"
    title = "The policy cannot work as it is written."


class PolicyMovedError(ConflictError):
    """Another version was published meanwhile; whoever gets this looks at the complaint again under that version."""

    slug = "policy-changed"
    title = "The policy was changed at the same time."


class NumbersExhaustedError(ConflictError):
    slug = "numbers-exhausted"
    title = "The policy's numbering has no number left for this period."


class QuotaError(TooManyError):
    slug = "quota-exceeded"
    title = "The plan's complaints of today are used up."


class SlugTakenError(ConflictError):
    slug = "slug-taken"
    title = "Another tenant has this slug."


class NameTakenError(ConflictError):
    slug = "name-taken"
    title = "The name is in use."


class SecondAdminError(ConflictError):
    slug = "second-admin-needed"
    title = "Another administrator must approve this."


class MappingInvalidError(InvalidError):
    slug = "source-invalid"
    title = "The source's settings cannot work."


class TableInvalidError(InvalidError):
    slug = "table-invalid"
    title = "The table cannot be read."


class ErasedError(NotFoundError):
    """What belonged to an erased person is not there, and the answer is that of anything that is not there."""


def field_errors(faults: Iterable[Fault], below: str = "") -> list[FieldError]:
    return [FieldError(below + fault.pointer, fault.detail, fault.suggestion or None) for fault in faults]
