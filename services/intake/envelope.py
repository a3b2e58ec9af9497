"""Envelope encryption of the vault: master key → tenant's key → data key of one person → what is known about them.

Everything sealed is AES-256-GCM with a random 96-bit nonce, bound to its place (tenant, table and column, row): a value
that is moved to another row, column or tenant does not open. Numbers and addresses are looked up by HMAC under a key of
the tenant's own, so equal ones meet and none can be read, or compared across tenants.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


class UnsealError(Exception):
    """The value does not open: another key, another place, or damage. Never says what it was."""


class Place(Struct, frozen=True):
    """Where a sealed value stands: its authenticated context."""

    tenant_id: UUID
    column: str  # table.column
    row: UUID | str

    @property
    def context(self) -> bytes:
        return _context(str(self.tenant_id), self.column, self.row)


def _context(tenant: str, column: str, row: UUID | str) -> bytes:
    return f"{tenant}|{column}|{row}".encode()


def new_key() -> bytes:
    return os.urandom(_KEY_BYTES)


def seal(key: bytes, place: Place, plain: bytes) -> bytes:
    """Seal at this place."""
    return _sealed(AESGCM(key), place.context, plain)


def _sealed(cipher: AESGCM, context: bytes, plain: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + nonce + cipher.encrypt(nonce, plain, context)


def unseal(key: bytes | AESGCM, place: Place, sealed: bytes) -> bytes:
    """Return what was sealed at this place; raises UnsealError for anything else."""
    if sealed[:1] != _VERSION or len(sealed) < 1 + _NONCE_BYTES + 16:
        raise UnsealError("not a sealed value")
    try:
        cipher = AESGCM(key) if isinstance(key, bytes) else key
        return cipher.decrypt(sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :], place.context)
    except InvalidTag:
        raise UnsealError("the value does not open here") from None


class TenantKeys:
    """The unwrapped keys of one tenant. They live in memory only, and show in no representation."""

    __slots__ = ("_index_key", "_key", "_tenant", "generation", "tenant_id")

    def __init__(self, tenant_id: UUID, generation: int, key: bytes, index_key: bytes) -> None:
        self.tenant_id = tenant_id
        self._tenant = str(tenant_id)  # each value sealed is bound to it
        self.generation = generation
        self._key = AESGCM(key)
        self._index_key = index_key

    def __repr__(self) -> str:
        return f"TenantKeys(tenant_id={self.tenant_id}, generation={self.generation})"

    def seal(self, column: str, row: UUID | str, plain: bytes) -> bytes:
        """Seal what belongs to the tenant and to no single person."""
        return _sealed(self._key, _context(self._tenant, column, row), plain)

    def unseal(self, column: str, row: UUID | str, sealed: bytes) -> bytes:
        return unseal(self._key, Place(self.tenant_id, column, row), sealed)

    def blind(self, kind: str, value: str) -> bytes:
        """Return the index under which a telephone number or address is found again."""
        return hmac.digest(self._index_key, f"{kind}|{value}".encode(), hashlib.sha256)

    def new_person(self, owner_id: UUID) -> tuple[PersonKey, bytes]:
        """Return a fresh data key and its wrapped form."""
        key = new_key()
        return PersonKey(self.tenant_id, key, self._tenant), self.seal("data_key.wrapped_key", owner_id, key)

    def person(self, owner_id: UUID, wrapped: bytes) -> PersonKey:
        return PersonKey(self.tenant_id, self.unseal("data_key.wrapped_key", owner_id, wrapped), self._tenant)


class PersonKey:
    """The data key of one complainant, or of a case without one."""

    __slots__ = ("_key", "_tenant", "tenant_id")

    def __init__(self, tenant_id: UUID, key: bytes, tenant: str | None = None) -> None:
        self.tenant_id = tenant_id
        self._tenant = tenant or str(tenant_id)
        self._key = AESGCM(key)

    def __repr__(self) -> str:
        return f"PersonKey(tenant_id={self.tenant_id})"

    def seal(self, column: str, row: UUID | str, plain: bytes) -> bytes:
        return _sealed(self._key, _context(self._tenant, column, row), plain)

    def unseal(self, column: str, row: UUID | str, sealed: bytes) -> bytes:
        return unseal(self._key, Place(self.tenant_id, column, row), sealed)


class WrappedTenantKeys(Struct, frozen=True):
    """A tenant's keys as they lie in the database."""

    generation: int
    master_key_id: str
    wrapped_key: bytes
    wrapped_index_key: bytes


class MasterKeys:
    """The keys that wrap tenants' keys: the first is used for what is new, the others still open what they wrapped."""

    __slots__ = ("_current", "_keys")

    def __init__(self, keys: list[bytes]) -> None:
        if not keys or any(len(key) != _KEY_BYTES for key in keys):
            raise ValueError(f"a master key has {_KEY_BYTES} bytes")
        self._keys = {_key_id(key): key for key in keys}
        self._current = _key_id(keys[0])

    @classmethod
    def from_text(cls, current: str, previous: tuple[str, ...] = ()) -> MasterKeys:
        """Read keys written in base64. Raises ValueError with a sentence that does not repeat them."""
        try:
            return cls([base64.b64decode(text, validate=True) for text in (current, *previous)])
        except (binascii.Error, ValueError):
            raise ValueError("a master key is 32 bytes in base64, as `openssl rand -base64 32` prints it") from None

    def __repr__(self) -> str:
        return f"MasterKeys(current={self._current!r}, {len(self._keys)} in all)"

    @property
    def current(self) -> str:
        return self._current

    def new_tenant(self, tenant_id: UUID, generation: int = 1) -> WrappedTenantKeys:
        return self._wrapped(tenant_id, generation, new_key(), new_key())

    def rewrapped(self, tenant_id: UUID, wrapped: WrappedTenantKeys) -> WrappedTenantKeys:
        """Return the same keys under the current master key; no row sealed by them changes."""
        key, index_key = self._unwrapped(tenant_id, wrapped)
        return self._wrapped(tenant_id, wrapped.generation, key, index_key)

    def tenant(self, tenant_id: UUID, wrapped: WrappedTenantKeys) -> TenantKeys:
        """Return the tenant's keys; raises UnsealError when no master key that we have wrapped them."""
        key, index_key = self._unwrapped(tenant_id, wrapped)
        return TenantKeys(tenant_id, wrapped.generation, key, index_key)

    def _wrapped(self, tenant_id: UUID, generation: int, key: bytes, index_key: bytes) -> WrappedTenantKeys:
        master = self._keys[self._current]
        return WrappedTenantKeys(
            generation=generation,
            master_key_id=self._current,
            wrapped_key=seal(master, Place(tenant_id, "tenant_key.wrapped_key", str(generation)), key),
            wrapped_index_key=seal(
                master, Place(tenant_id, "tenant_key.wrapped_index_key", str(generation)), index_key
            ),
        )

    def _unwrapped(self, tenant_id: UUID, wrapped: WrappedTenantKeys) -> tuple[bytes, bytes]:
        master = self._keys.get(wrapped.master_key_id)
        if master is None:
            raise UnsealError(f"no master key {wrapped.master_key_id} is set; RECOURSE_MASTER_KEY_PREVIOUS can hold it")
        row = str(wrapped.generation)
        return (
            unseal(master, Place(tenant_id, "tenant_key.wrapped_key", row), wrapped.wrapped_key),
            unseal(master, Place(tenant_id, "tenant_key.wrapped_index_key", row), wrapped.wrapped_index_key),
        )


def _key_id(key: bytes) -> str:
    """A name for a key that gives nothing of it away."""
    return hashlib.sha256(b"recourse master key id|" + key).hexdigest()[:16]
