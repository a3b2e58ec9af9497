"""How staff are reached: encrypted in the database, in the clear only in answers to those who may see it."""

from __future__ import annotations

import base64
import contextlib
import os
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    language: str | None = None


class ContactBox:
    """AES-256-GCM under a key of each tenant's, derived (HKDF) from the master key. A contact opens only for its own tenant and person."""

    def __init__(self, master_key: str, previous: str = "") -> None:
        """Make a box.

        Args:
            master_key: 32 bytes in base64; ValueError otherwise.
            previous: former master keys, comma-separated: what they sealed still opens, and is sealed anew when it changes.
        """
        self._masters = [_key(text) for text in (master_key, *previous.split(",")) if text]

    def seal(self, tenant_id: UUID, staff_id: str, contact: Contact) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        plain = msgspec.json.encode(contact)
        return nonce + _cipher(self._masters[0], tenant_id).encrypt(nonce, plain, _bound_to(tenant_id, staff_id))

    def open(self, tenant_id: UUID, staff_id: str, sealed: bytes) -> Contact:
        """Raises InvalidTag for what none of the keys sealed, or sealed for somebody else."""
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        for master in self._masters[:-1]:
            with contextlib.suppress(InvalidTag):
                plain = _cipher(master, tenant_id).decrypt(nonce, body, _bound_to(tenant_id, staff_id))
                return msgspec.json.decode(plain, type=Contact)
        plain = _cipher(self._masters[-1], tenant_id).decrypt(nonce, body, _bound_to(tenant_id, staff_id))
        return msgspec.json.decode(plain, type=Contact)


def _key(text: str) -> bytes:
    key = base64.b64decode(text.strip(), validate=True)
    if len(key) != 32:
        raise ValueError("a master key has 32 bytes")
    return key


def _cipher(master: bytes, tenant_id: UUID) -> AESGCM:
    derived = HKDF(SHA256(), 32, salt=tenant_id.bytes, info=b"recourse routing staff contact v1")
    return AESGCM(derived.derive(master))


def _bound_to(tenant_id: UUID, staff_id: str) -> bytes:
    return f"{tenant_id}|staff_member.contact|{staff_id}".encode()
