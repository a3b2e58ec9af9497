"""What the relay is given in memory, and when it may rely on that alone."""

from __future__ import annotations

import asyncio
from uuid import UUID

from shared.handover import MISSED, MOST, MOST_BYTES, Handover, Known, Row


def a_row(row_id: int) -> Row:
    return Row(UUID(int=1), row_id, UUID(int=row_id), "intake.v1.x.y.z", b"{}")


def is_complete(known: Known) -> bool:
    return known.is_complete


def complete(highest: int) -> Known:
    """One that knows all ids up to this one."""
    known = Known()
    known.note(highest)
    known.settle(own=100, oldest=100)
    assert known.settle(own=102, oldest=101)
    assert is_complete(known)
    return known


def test_rows_are_handed_over_in_the_order_of_their_ids() -> None:
    handover = Handover()
    handover.look()
    handover.give([a_row(4), a_row(5)])
    handover.give([a_row(3)])
    assert [row.id for row in handover.take()] == [3, 4, 5]
    assert handover.take() == []
    assert not handover.in_table


def test_until_somebody_looks_rows_are_left_to_the_table() -> None:
    handover = Handover()
    handover.give([a_row(1)])
    assert handover.in_table
    assert handover.take() == []


def test_more_rows_than_are_kept_are_left_to_the_table() -> None:
    handover = Handover()
    handover.look()
    handover.give([a_row(number) for number in range(MOST)])
    assert len(handover.take()) == MOST
    handover.give([a_row(number) for number in range(MOST)])
    handover.give([a_row(MOST)])
    assert handover.in_table
    assert handover.take() == []


def test_larger_bodies_than_are_kept_are_left_to_the_table() -> None:
    handover = Handover()
    handover.look()
    row = a_row(1)._replace(body=bytes(MOST_BYTES))
    handover.give([row])
    assert handover.take() == [row]
    handover.give([row])
    handover.give([a_row(2)])
    assert handover.in_table
    assert handover.take() == []


def test_rows_that_nobody_gives_are_left_to_the_table_with_all_others() -> None:
    handover = Handover()
    handover.look()
    handover.give([a_row(1)])
    handover.set()
    handover.give([a_row(2)])
    assert handover.in_table
    assert handover.take() == []


async def test_whoever_waits_is_woken_by_both() -> None:
    handover = Handover()
    for tell in (handover.set, lambda: handover.give([a_row(1)])):
        waiting = asyncio.create_task(handover.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        tell()
        await waiting
        handover.take()
        handover.look()


def test_what_was_added_before_the_first_known_row_is_missing_until_its_transactions_have_ended() -> None:
    known = Known()
    assert not is_complete(known)
    known.note(70)
    assert not known.settle(own=500, oldest=480)
    assert not known.settle(own=510, oldest=500)  # the transaction 500 itself, or one that began before it, goes on
    assert not is_complete(known)
    assert known.settle(own=520, oldest=501)
    assert is_complete(known)


def test_ids_one_after_the_other_leave_nothing_missing() -> None:
    known = complete(70)
    assert [known.note(row_id) for row_id in (71, 72, 73)] == [True, True, True]
    assert is_complete(known)


def test_an_id_is_missing_until_it_comes() -> None:
    known = complete(70)
    known.note(73)
    assert not is_complete(known)
    assert known.note(72)
    assert not is_complete(known)
    assert known.note(71)
    assert is_complete(known)
    assert [known.note(row_id) for row_id in (70, 71, 72, 73)] == [False, False, False, False]


def test_an_id_that_is_doubted_may_still_come() -> None:
    known = complete(70)
    known.note(72)
    assert not known.settle(own=600, oldest=590)
    known.note(74)
    assert known.note(71)
    assert not is_complete(known)
    assert known.note(73)
    assert is_complete(known)


def test_an_id_that_is_missed_later_is_doubted_later() -> None:
    known = complete(70)
    known.note(72)
    known.settle(own=600, oldest=590)
    known.note(74)
    assert known.settle(own=610, oldest=605)
    assert not is_complete(known)
    assert not known.settle(own=620, oldest=610)
    assert known.settle(own=630, oldest=611)
    assert is_complete(known)


def test_too_many_missing_ids_are_remembered_as_one() -> None:
    known = complete(70)
    known.note(72 + MISSED)
    assert not is_complete(known)
    assert not known.note(71)  # the table has it
    known.settle(own=600, oldest=600)
    assert known.settle(own=610, oldest=601)
    assert is_complete(known)
