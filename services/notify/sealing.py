"""Secrets of tenants at rest: AES-256-GCM under a key of the tenant's, bound to the row they belong to."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE = 12


class SealBrokenError(Exception):
    """The bytes were not sealed under this master key for this row."""


class Sealer:
    """Seals and opens, and makes keyed hashes by which an address is recognised without being stored."""

    def __init__(self, master_key: bytes, *previous: bytes) -> None:
        """Seal under `master_key`; what was sealed under a previous one still opens."""
        self._masters = (master_key, *previous)
        self._key = lru_cache(maxsize=4096)(self._derive)

    def _derive(self, tenant_id: UUID, purpose: str, place: int = 0) -> bytes:
        info = f"recourse notify {purpose} {tenant_id}".encode()
        return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(self._masters[place])

    def seal(self, tenant_id: UUID, place: str, plain: bytes) -> bytes:
        """Return nonce and ciphertext; `place` names the table, the column and the row."""
        nonce = os.urandom(_NONCE)
        return nonce + AESGCM(self._key(tenant_id, "seal")).encrypt(nonce, plain, _bound_to(tenant_id, place))

    def open(self, tenant_id: UUID, place: str, sealed: bytes) -> bytes:
        """Raises SealBrokenError for anything but what was sealed for this tenant and place."""
        for master in range(len(self._masters)):
            with contextlib.suppress(InvalidTag, ValueError):
                return AESGCM(self._key(tenant_id, "seal", master)).decrypt(
                    sealed[:_NONCE], sealed[_NONCE:], _bound_to(tenant_id, place)
                )
        raise SealBrokenError("a sealed value does not open")

    def hash(self, tenant_id: UUID, what: str, value: str) -> bytes:
        """Return a keyed hash of 16 bytes: the same for the same value of the same tenant, and of use to nobody else."""
        digest = hmac.digest(self._key(tenant_id, "hash"), f"{what}\0{value}".encode(), hashlib.sha256)
        return digest[:16]


def _bound_to(tenant_id: UUID, place: str) -> bytes:
    return f"{tenant_id}|{place}".encode()
