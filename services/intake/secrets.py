"""Signing secrets of sources at rest: sealed under the tenant's key, bound to their source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from services.intake.domain.sources import Secret
from services.intake.envelope import TenantKeys

COLUMN: Final = "source.sealed_secrets"


def seal_secrets(keys: TenantKeys, source_id: UUID, secrets: Sequence[Secret]) -> bytes:
    return keys.seal(COLUMN, source_id, msgspec.json.encode(list(secrets)))


def open_secrets(keys: TenantKeys, source_id: UUID, sealed: bytes | None) -> list[Secret]:
    """Return the secrets; none for a source that has none."""
    if sealed is None:
        return []
    return msgspec.json.decode(keys.unseal(COLUMN, source_id, sealed), type=list[Secret])
