from __future__ import annotations

import base64
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.envelope import MasterKeys, Place, UnsealError, seal, unseal

TENANT, OTHER = UUID(int=1), UUID(int=2)
KEY = b"k" * 32
PLACE = Place(TENANT, "free_text.sealed", UUID(int=7))


@given(st.binary(max_size=500))
def test_what_is_sealed_opens_at_its_place(plain: bytes) -> None:
    assert unseal(KEY, PLACE, seal(KEY, PLACE, plain)) == plain


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (b"x" * 32, PLACE),
        (KEY, Place(OTHER, PLACE.column, PLACE.row)),
        (KEY, Place(TENANT, "complaint.sealed_contact", PLACE.row)),
        (KEY, Place(TENANT, PLACE.column, UUID(int=8))),
    ],
)
def test_it_opens_with_no_other_key_and_at_no_other_place(key: bytes, place: Place) -> None:
    with pytest.raises(UnsealError):
        unseal(key, place, seal(KEY, PLACE, b"secret"))


@given(st.binary(max_size=80))
def test_damaged_bytes_do_not_open(sealed: bytes) -> None:
    with pytest.raises(UnsealError):
        unseal(KEY, PLACE, sealed)


def test_every_bit_is_under_seal() -> None:
    sealed = seal(KEY, PLACE, b"secret")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(UnsealError):
            unseal(KEY, PLACE, bytes(changed))


def test_two_seals_of_one_text_differ() -> None:
    assert seal(KEY, PLACE, b"secret") != seal(KEY, PLACE, b"secret")


def test_one_number_is_found_in_its_tenant_and_not_in_another() -> None:
    master = MasterKeys([KEY])
    mine = master.tenant(TENANT, master.new_tenant(TENANT))
    theirs = master.tenant(OTHER, master.new_tenant(OTHER))
    assert mine.blind("phone", "+8613812341111") == mine.blind("phone", "+8613812341111")
    assert mine.blind("phone", "+8613812341111") != theirs.blind("phone", "+8613812341111")
    assert mine.blind("phone", "x") != mine.blind("email", "x")


def test_a_new_master_key_opens_what_the_former_one_wrapped() -> None:
    old = MasterKeys([KEY])
    wrapped = old.new_tenant(TENANT)
    sealed = old.tenant(TENANT, wrapped).seal("source.sealed_secrets", "s", b"secret")
    both = MasterKeys([b"n" * 32, KEY])
    rewrapped = both.rewrapped(TENANT, wrapped)
    assert rewrapped.master_key_id == both.current != wrapped.master_key_id
    only_new = MasterKeys([b"n" * 32])
    assert only_new.tenant(TENANT, rewrapped).unseal("source.sealed_secrets", "s", sealed) == b"secret"
    with pytest.raises(UnsealError):
        only_new.tenant(TENANT, wrapped)


def test_keys_of_one_tenant_do_not_open_as_anothers() -> None:
    master = MasterKeys([KEY])
    with pytest.raises(UnsealError):
        master.tenant(OTHER, master.new_tenant(TENANT))


def test_a_key_shows_in_no_representation() -> None:
    master = MasterKeys.from_text(base64.b64encode(KEY).decode())
    tenant = master.tenant(TENANT, master.new_tenant(TENANT))
    person, _ = tenant.new_person(UUID(int=5))
    assert "kkkk" not in repr(master) + repr(tenant) + repr(person)
    assert base64.b64encode(KEY).decode() not in repr(master)


@pytest.mark.parametrize("text", ["", "short", "!" * 44, base64.b64encode(b"x" * 31).decode()])
def test_a_master_key_that_is_none_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError) as failure:
        MasterKeys.from_text(text)
    assert not text or text not in str(failure.value)
