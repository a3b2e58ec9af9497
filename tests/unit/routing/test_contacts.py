"""Contacts of staff open where they were sealed and nowhere else."""

from __future__ import annotations

import base64
from uuid import UUID, uuid4

import pytest
from cryptography.exceptions import InvalidTag

from services.routing.contacts import Contact, ContactBox

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
TENANT = UUID(int=5)
ANNA = Contact(name="安娜", phone="+8613800138000")


def test_what_is_sealed_opens_for_the_same_person_of_the_same_tenant() -> None:
    box = ContactBox(OLD)
    sealed = box.seal(TENANT, "anna", ANNA)
    assert box.open(TENANT, "anna", sealed) == ANNA
    assert b"13800138000" not in sealed
    for tenant_id, staff_id in ((uuid4(), "anna"), (TENANT, "ben")):
        with pytest.raises(InvalidTag):
            box.open(tenant_id, staff_id, sealed)


def test_a_former_master_key_still_opens_and_the_present_one_seals() -> None:
    sealed = ContactBox(OLD).seal(TENANT, "anna", ANNA)
    both = ContactBox(NEW, OLD)
    assert both.open(TENANT, "anna", sealed) == ANNA
    assert ContactBox(NEW).open(TENANT, "anna", both.seal(TENANT, "anna", ANNA)) == ANNA
    with pytest.raises(InvalidTag):
        ContactBox(NEW).open(TENANT, "anna", sealed)


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(b"x" * 31).decode()])
def test_a_master_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        ContactBox(text).seal(TENANT, "anna", ANNA)
