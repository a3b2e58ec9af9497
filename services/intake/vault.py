"""The vault: the only place that turns sealed values into personal data, and tells who looked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from services.intake.domain.complaint import Contact
from services.intake.envelope import MasterKeys, PersonKey, TenantKeys, UnsealError
from services.intake.refusals import ErasedError
from services.intake.repository import complaints as complaint_rows
from services.intake.repository import vault as rows
from shared.auth import Caller
from shared.database import Tx
from shared.errors import NotFoundError
from shared.ids import new_id

_TENANTS: Final = 10_000  # whose keys stay unwrapped in memory
TEXT_COLUMN: Final = "free_text.sealed"
CONTACT_COLUMN: Final = "complaint.sealed_contact"
FILE_COLUMN: Final = "attachment.sealed"
FILE_NAME_COLUMN: Final = "attachment.sealed_name"
REASON_COLUMN: Final = "access.sealed_reason"


class Text(msgspec.Struct, frozen=True):
    """A text as it was written."""

    text_id: UUID
    case_id: UUID
    kind: str
    text: str


class Vault:
    """One per process. Keys of tenants are unwrapped once and kept in memory; data keys of people are not kept."""

    def __init__(self, master: MasterKeys) -> None:
        self._master = master
        self._tenants: OrderedDict[UUID, TenantKeys] = OrderedDict()

    def known(self, tenant_id: UUID) -> TenantKeys | None:
        """Return a tenant's keys, if they have been unwrapped."""
        found = self._tenants.get(tenant_id)
        if found is not None:
            self._tenants.move_to_end(tenant_id)
        return found

    async def keys(self, tx: Tx) -> TenantKeys:
        """Return the keys of the transaction's tenant. NotFoundError for a tenant that has none, which no tenant of
        ours is.
        """
        found = self.known(tx.tenant_id)
        if found is None:
            wrapped = await rows.tenant_keys(tx, tx.tenant_id)
            if wrapped is None:
                raise NotFoundError()
            found = self._tenants[tx.tenant_id] = self._master.tenant(tx.tenant_id, wrapped)
            if len(self._tenants) > _TENANTS:
                self._tenants.popitem(last=False)
        return found

    async def add_tenant(self, tx: Tx) -> None:
        """Make the keys of a new tenant."""
        await rows.add_tenant_keys(tx, tx.tenant_id, self._master.new_tenant(tx.tenant_id))

    async def rewrap(self, tx: Tx) -> bool:
        """Wrap the tenant's keys by the current master key, if another one did; tell whether that was so."""
        wrapped = await rows.tenant_keys(tx, tx.tenant_id)
        if wrapped is None or wrapped.master_key_id == self._master.current:
            return False
        await rows.rewrap_tenant_keys(tx, tx.tenant_id, self._master.rewrapped(tx.tenant_id, wrapped))
        return True

    # -- people
    # ------------------------------------------------------------------------------------------------------------

    async def contact(self, tx: Tx, complaint_id: UUID, complainant_id: UUID | None = None) -> Contact | None:
        """Return how the complainant is reached: as this complaint says, else as their latest does.

        None when nobody is known, or nobody any more; an empty contact when somebody is who told nothing.

        Args:
            complaint_id: any case; one that is no complaint has no contact of its own.
            complainant_id: whose contact is meant, where it is not the case's own complainant.
        """
        found = await complaint_rows.find(tx, tx.tenant_id, complaint_id)
        owner = complainant_id or (found.complainant_id if found is not None else None)
        person = await self._person(tx, owner) if owner is not None else None
        if owner is None or person is None:
            return None
        sealed: tuple[UUID, bytes] | None = None
        if found is not None and found.complainant_id == owner and found.sealed_contact is not None:
            sealed = (complaint_id, found.sealed_contact)
        else:
            sealed = await complaint_rows.latest_of(tx, tx.tenant_id, owner)
        if sealed is None:
            return Contact()
        return msgspec.json.decode(person.unseal(CONTACT_COLUMN, sealed[0], sealed[1]), type=Contact)

    async def erase(self, tx: Tx, complainant_id: UUID) -> bool:
        """Erase a person; False when that was done before. NotFoundError when there is no such person."""
        done = await rows.erase(tx, tx.tenant_id, complainant_id)
        if done is None:
            raise NotFoundError()
        return done

    # -- texts
    # -------------------------------------------------------------------------------------------------------------

    async def add_text(self, tx: Tx, case_id: UUID, kind: str, text: str, created_by: str) -> UUID:
        """Store a text of a complaint under its complainant's key, and return its id. NotFoundError for what is no
        complaint of ours.
        """
        found = await complaint_rows.find(tx, tx.tenant_id, case_id)
        if found is None:
            raise NotFoundError()
        wrapped = await rows.lock_data_key(tx, tx.tenant_id, found.complainant_id)
        if wrapped is None:
            raise ErasedError()
        person = (await self.keys(tx)).person(found.complainant_id, wrapped)
        text_id = new_id()
        sealed = person.seal(TEXT_COLUMN, text_id, text.encode())
        await rows.add_text(tx, tx.tenant_id, text_id, found.complainant_id, case_id, kind, sealed, created_by)
        return text_id

    async def texts(self, tx: Tx, text_ids: Sequence[UUID]) -> list[Text]:
        """Return those of the texts that are there, in the order asked for."""
        return await self._opened(tx, await rows.texts(tx, tx.tenant_id, text_ids), text_ids)

    async def texts_of_case(self, tx: Tx, case_id: UUID) -> list[Text]:
        """Return the texts of a case, oldest first."""
        found = await rows.texts_of_case(tx, tx.tenant_id, case_id)
        return await self._opened(tx, found, [each.text_id for each in found])

    async def attachment(self, tx: Tx, complaint_id: UUID, attachment_id: UUID) -> tuple[str, str, bytes]:
        """Return name, media type and content of an attachment. NotFoundError when it is not there, or not any more."""
        found = await rows.attachment(tx, tx.tenant_id, complaint_id, attachment_id)
        if found is None:
            raise NotFoundError()
        owner, media_type, sealed_name, sealed = found
        person = await self._person(tx, owner)
        if person is None:
            raise ErasedError()
        name = person.unseal(FILE_NAME_COLUMN, attachment_id, sealed_name).decode()
        return name, media_type, person.unseal(FILE_COLUMN, attachment_id, sealed)

    async def attachments(self, tx: Tx, complaint_id: UUID) -> list[tuple[UUID, str, str, int]]:
        """Return id, name, media type and size of a complaint's attachments."""
        found = await rows.attachments(tx, tx.tenant_id, complaint_id)
        people = await self._people(tx, {each.owner_id for each in found})
        return [
            (
                each.attachment_id,
                people[each.owner_id].unseal(FILE_NAME_COLUMN, each.attachment_id, each.sealed_name).decode(),
                each.media_type,
                each.size,
            )
            for each in found
            if each.owner_id in people
        ]

    async def _opened(self, tx: Tx, found: Sequence[rows.SealedText], order: Sequence[UUID]) -> list[Text]:
        people = await self._people(tx, {each.owner_id for each in found})
        opened = {
            each.text_id: Text(
                each.text_id,
                each.case_id,
                each.kind,
                people[each.owner_id].unseal(TEXT_COLUMN, each.text_id, each.sealed).decode("utf-8", "replace"),
            )
            for each in found
            if each.owner_id in people
        }
        return [opened[text_id] for text_id in dict.fromkeys(order) if text_id in opened]

    async def _person(self, tx: Tx, owner_id: UUID) -> PersonKey | None:
        return (await self._people(tx, {owner_id})).get(owner_id)

    async def _people(self, tx: Tx, owners: set[UUID]) -> dict[UUID, PersonKey]:
        if not owners:
            return {}
        wrapped = await rows.data_keys(tx, tx.tenant_id, list(owners))
        keys = await self.keys(tx)
        return {owner: keys.person(owner, key) for owner, key in wrapped.items()}

    # -- who looked
    # --------------------------------------------------------------------------------------------------------

    async def log_access(
        self,
        tx: Tx,
        caller: Caller,
        act: str,
        reason: str,
        what: Sequence[str],
        *,
        case_id: UUID | None = None,
        complainant_id: UUID | None = None,
    ) -> None:
        """Write down, in the same transaction, who looked at what and why."""
        access_id = new_id()
        sealed = (await self.keys(tx)).seal(REASON_COLUMN, access_id, reason.encode())
        await rows.add_access(
            tx,
            tx.tenant_id,
            access_id,
            caller.credential_id,
            caller.staff_id,
            act,
            case_id,
            complainant_id,
            what,
            sealed,
        )

    async def reason(self, tx: Tx, access_id: UUID, sealed: bytes) -> str:
        try:
            return (await self.keys(tx)).unseal(REASON_COLUMN, access_id, sealed).decode()
        except UnsealError:
            return ""
