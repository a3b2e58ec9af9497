"""I1: what is sealed opens where it lies, with the keys that lie beside the data; persons are known by the contacts that they gave, and
what was sent to them went there (I5).

No database holds the keys that wrap all others. An audit that cannot find them sees what the vault tells without: see `vault`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from services.audit.look import Look
from services.audit.tenants import as_uuid
from services.audit.vault import check_nonces

_NONCE: Final = 12
HOLDERS: Final = ("intake", "routing", "notify")
MASK: Final = "****"
"""Stands for what is not shown of an address."""

MASTER: Final = "{}.master.secret.json"

FOLDER: Final = """
SELECT setting
  FROM pg_settings
 WHERE name = 'data_directory'"""

TENANT_KEYS: Final = """
SELECT tenant_id, generation, master_key_id, wrapped_key, wrapped_index_key
  FROM intake.tenant_key"""

PERSONS: Final = """
SELECT tenant_id, owner_id, generation, wrapped_key
  FROM intake.data_key
 WHERE wrapped_key IS NOT NULL"""

# What is sealed for one person: whose it is and in which row it lies.
OF_PERSONS: Final = """
SELECT tenant_id, complainant_id AS owner, complaint_id AS id, complaint_id AS of, 'complaint.sealed_contact' AS place,
       sealed_contact AS sealed
  FROM intake.complaint
 WHERE sealed_contact IS NOT NULL
 UNION ALL
SELECT tenant_id, owner_id, text_id, case_id, 'free_text.sealed', sealed
  FROM intake.free_text
 UNION ALL
SELECT tenant_id, owner_id, attachment_id, complaint_id, 'attachment.sealed', sealed
  FROM intake.attachment
 UNION ALL
SELECT tenant_id, owner_id, attachment_id, complaint_id, 'attachment.sealed_name', sealed_name
  FROM intake.attachment"""

OF_TENANTS: Final = """
SELECT tenant_id, source_id AS id, source_id::text AS name, 'source.sealed_secrets' AS place, sealed_secrets AS sealed
  FROM intake.source
 WHERE sealed_secrets IS NOT NULL
 UNION ALL
SELECT tenant_id, access_id, access_id::text, 'access.sealed_reason', sealed_reason
  FROM intake.access
 UNION ALL
SELECT tenant_id, import_id, import_id || '/' || place, 'import_chunk.sealed', sealed
  FROM intake.import_chunk"""

POINTS: Final = """
SELECT tenant_id, complainant_id, kind, blind
  FROM intake.contact_point"""

ERASED: Final = """
SELECT DISTINCT tenant_id
  FROM intake.data_key
 WHERE erased_at IS NOT NULL"""

SENT: Final = """
SELECT tenant_id, delivery_id, addressee, recipient
  FROM notify.delivery
 WHERE audience = 'complainant' AND channel IN ('sms', 'email') AND recipient <> ''"""

# Staff who are away are stood in for by their deputies; a contact that has changed since says nothing of what was sent before.
SENT_TO_STAFF: Final = """
SELECT d.tenant_id, d.delivery_id, d.recipient, s.deputy, d.addressee, d.created_at
  FROM notify.delivery d
  JOIN routing.staff_member s ON s.tenant_id = d.tenant_id AND s.staff_id = d.addressee
 WHERE d.audience <> 'complainant' AND d.rule <> 'test' AND d.channel IN ('sms', 'email') AND d.recipient <> ''"""

STAFF: Final = """
SELECT tenant_id, staff_id AS name, 'staff_member.contact' AS place, contact AS sealed, deputy, changed_at
  FROM routing.staff_member
 WHERE contact IS NOT NULL"""

NOTIFY: Final = """
SELECT tenant_id, provider_id::text AS name, 'provider.sealed' AS place, sealed
  FROM notify.provider
 UNION ALL
SELECT tenant_id, endpoint_id::text, 'endpoint.sealed', sealed
  FROM notify.endpoint"""


class _Key(Struct):
    """`previous`: former keys, under which some of it may still be sealed."""

    key: str
    previous: list[str] = []


class _Contact(Struct):
    phone: str | None = None
    email: str | None = None


class _Tenant:
    """The keys of a tenant, by generation, and the ones under which its contacts are hashed."""

    def __init__(self) -> None:
        self.keys: dict[int, AESGCM] = {}
        self.index_keys: list[bytes] = []


async def find_masters(connection: asyncpg.Connection, folder: Path | None) -> dict[str, list[bytes]]:
    """Return the keys of the services that seal, from `folder`, or else from where the server's files lie; nothing where there are none."""
    if folder is None:
        held = Path(await connection.fetchval(FOLDER) or "/")
        folder = next((each for each in held.parents if any(each.glob(MASTER.format("*")))), held)
    found: dict[str, list[bytes]] = {}
    for service in HOLDERS:
        try:
            kept = msgspec.json.decode((folder / MASTER.format(service)).read_bytes(), type=_Key)
            found[service] = [base64.b64decode(each, validate=True) for each in (kept.key, *kept.previous)]
        except (OSError, ValueError, msgspec.MsgspecError):
            continue
    return found


async def check(look: Look) -> None:
    masters = await find_masters(look.connection, look.secrets)
    if "intake" in masters:
        await _intake(look, {_name(key): AESGCM(key) for key in masters["intake"]})
    if "routing" in masters:
        await _staff(look, masters["routing"])
    if "notify" in masters:
        for row in await look.rows(NOTIFY):
            look.findings.looked_at(1)
            place = (row["tenant_id"], row["place"], row["name"], row["sealed"])
            if all(_open_notify(master, *place) is None for master in masters["notify"]):
                _note(look, row["tenant_id"], row["name"], row["place"])
    await check_nonces(look)


async def _staff(look: Look, masters: list[bytes]) -> None:
    """Contacts of staff open, and what was sent to them went there, or to those who stand in for them."""
    contacts: dict[tuple[UUID, str], tuple[_Contact, Any]] = {}
    for row in await look.rows(STAFF):
        look.findings.looked_at(1)
        place = (row["tenant_id"], row["place"], row["name"], row["sealed"])
        opened = (_open_staff(master, *place) for master in masters)
        plain = next((each for each in opened if each is not None), None)
        if plain is None:
            _note(look, row["tenant_id"], row["name"], row["place"])
        else:
            contacts[row["tenant_id"], row["name"]] = msgspec.json.decode(plain, type=_Contact), row
    for row in await look.rows(SENT_TO_STAFF):
        look.findings.looked_at(1)
        chain: list[_Contact] = []
        name, seen = row["addressee"], set[str]()
        while name is not None and name not in seen:
            seen.add(name)
            found = contacts.get((row["tenant_id"], name))
            if found is None or found[1]["changed_at"] > row["created_at"]:
                break  # what it was then, nobody can say
            chain.append(found[0])
            name = found[1]["deputy"]
        else:
            if not _is_of(row["recipient"], chain) and row["delivery_id"] not in look.misplaced:
                what = "went to an address that is not its addressee's"
                look.findings.add("I5", row["delivery_id"], what, tenant_id=row["tenant_id"])


async def _intake(look: Look, masters: dict[str, AESGCM]) -> None:
    tenants = await _tenants(look, masters)
    persons: dict[tuple[UUID, UUID], AESGCM] = {}
    for tenant_id, owner_id, generation, wrapped in await look.rows(PERSONS):
        look.findings.looked_at(1)
        of = tenants.get(tenant_id)
        if of is None or generation not in of.keys:
            continue  # the tenant's key is lost, and that is the finding
        key = _opened(of.keys[generation], tenant_id, "data_key.wrapped_key", owner_id, wrapped)
        if key is not None and len(key) == 32:
            persons[tenant_id, owner_id] = AESGCM(key)
        else:
            _note(look, tenant_id, owner_id, "data_key.wrapped_key")
    given: dict[tuple[UUID, UUID], list[_Contact]] = defaultdict(list)
    for tenant_id, owner, id_, of_case, place, sealed in await look.rows(OF_PERSONS):
        look.findings.looked_at(1)
        person = persons.get((tenant_id, owner))
        if person is None:
            continue
        plain = _opened(person, tenant_id, place, id_, sealed)
        if plain is None:
            if not {owner, of_case} & look.misplaced and not _is_no_complaint(look, of_case):
                _note(look, tenant_id, id_, place)
        elif place == "complaint.sealed_contact":
            given[tenant_id, owner].append(msgspec.json.decode(plain, type=_Contact))
    for tenant_id, id_, name, place, sealed in await look.rows(OF_TENANTS):
        keys = tenants[tenant_id].keys.values() if tenant_id in tenants else ()
        if keys and all(_opened(key, tenant_id, place, name, sealed) is None for key in keys):
            _note(look, tenant_id, id_, place)
    points = {place: _blinds(tenants[place[0]], contacts) for place, contacts in given.items()}
    await _points(look, points)
    await _sent(look, given)


async def _points(look: Look, given: dict[tuple[UUID, UUID], set[tuple[str, bytes]]]) -> None:
    """Persons are known by contacts that they gave, and by each of them, unless another one gave it first."""
    kept: dict[UUID, set[tuple[str, bytes]]] = defaultdict(set)
    for tenant_id, complainant_id, kind, blind in await look.rows(POINTS):
        kept[tenant_id].add((kind, blind))
        look.findings.looked_at(1)
        if (tenant_id, complainant_id) in given and (kind, blind) not in given[tenant_id, complainant_id]:
            _note(look, tenant_id, complainant_id, "contact_point", "is known by a contact that they did not give")
    erased = {row["tenant_id"] for row in await look.rows(ERASED)}  # and with them contacts that others gave later
    for (tenant_id, owner), points in given.items():
        unknown = points - kept[tenant_id]
        if unknown and (tenant_id not in erased or unknown == points):
            _note(look, tenant_id, owner, "contact_point", "is not known by a contact that they gave")


async def _tenants(look: Look, masters: dict[str, AESGCM]) -> dict[UUID, _Tenant]:
    found: dict[UUID, _Tenant] = defaultdict(_Tenant)
    for tenant_id, generation, name, wrapped, wrapped_index in await look.rows(TENANT_KEYS):
        look.findings.looked_at(1)
        of = masters.get(name)
        key, index_key = _first(
            [
                _opened(master, tenant_id, f"tenant_key.{column}", generation, sealed)
                for column, sealed in (("wrapped_key", wrapped), ("wrapped_index_key", wrapped_index))
            ]
            for master in ([of] if of is not None else masters.values())
        )
        if key is None or index_key is None or of is None:
            _note(look, tenant_id, tenant_id, "tenant_key")
        if key is not None:
            found[tenant_id].keys[generation] = AESGCM(key)
        if index_key is not None:
            found[tenant_id].index_keys.append(index_key)
    return dict(found)


def _first(tries: Iterable[list[bytes | None]]) -> list[bytes | None]:
    """What opened most, of what each key has opened."""
    return max(tries, key=lambda opened: sum(each is not None for each in opened))


async def _sent(look: Look, given: dict[tuple[UUID, UUID], list[_Contact]]) -> None:
    """Where a message went is one of the contacts of whom it was for, as far as it is shown."""
    for tenant_id, delivery_id, addressee, recipient in await look.rows(SENT):
        look.findings.looked_at(1)
        contacts = given.get((tenant_id, as_uuid(addressee)))
        if contacts and not _is_of(recipient, contacts):
            what = "went to an address that its person has not given"
            look.findings.add("I5", delivery_id, what, tenant_id=tenant_id)


def _is_of(recipient: str, contacts: list[_Contact]) -> bool:
    """Whether a masked address may be one of these."""
    start, _, end = recipient.partition(MASK)
    return any(
        value is not None and value.startswith(start) and value.endswith(end)
        for each in contacts
        for value in (each.phone, each.email)
    )


def _blinds(of: _Tenant, contacts: list[_Contact]) -> set[tuple[str, bytes]]:
    """By what somebody who gave these contacts is known."""
    return {
        (kind, hmac.digest(key, f"{kind}|{value}".encode(), hashlib.sha256))
        for key in of.index_keys
        for given in contacts
        for kind, value in (("phone", given.phone), ("email", given.email))
        if value is not None
    }


def _opened(key: AESGCM, tenant_id: UUID, place: str, row: object, sealed: bytes | None) -> bytes | None:
    """What intake has sealed at this place, behind a byte for the version; None when it does not open."""
    try:
        return key.decrypt(
            (sealed or b"")[1 : 1 + _NONCE], (sealed or b"")[1 + _NONCE :], f"{tenant_id}|{place}|{row}".encode()
        )
    except (InvalidTag, ValueError):
        return None


def _open_staff(master: bytes, tenant_id: UUID, place: str, name: str, sealed: bytes) -> bytes | None:
    return _decrypted(
        _derived(master, tenant_id.bytes, b"recourse routing staff contact v1"), f"{tenant_id}|{place}|{name}", sealed
    )


def _open_notify(master: bytes, tenant_id: UUID, place: str, name: str, sealed: bytes) -> bytes | None:
    return _decrypted(
        _derived(master, None, f"recourse notify seal {tenant_id}".encode()), f"{tenant_id}|{place}|{name}", sealed
    )


@lru_cache(maxsize=10_000)
def _derived(master: bytes, salt: bytes | None, info: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt=salt, info=info).derive(master))


def _decrypted(key: AESGCM, context: str, sealed: bytes) -> bytes | None:
    try:
        return key.decrypt(sealed[:_NONCE], sealed[_NONCE:], context.encode())
    except (InvalidTag, ValueError):
        return None


def _name(key: bytes) -> str:
    """How a row names the key that wrapped it."""
    return hashlib.sha256(b"recourse master key id|" + key).hexdigest()[:16]


def _is_no_complaint(look: Look, case_id: UUID) -> bool:
    return any(look.findings.has(each, case_id) for each in ("I2", "I15"))


def _note(look: Look, tenant_id: UUID, subject: Any, place: str, what: str = "does not open") -> None:
    if subject not in look.misplaced and not _is_no_complaint(look, subject):
        look.findings.add("I1", subject, f"{place} {what}", tenant_id=tenant_id)
