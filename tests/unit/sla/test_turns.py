"""How the cases that are due are shared out among tenants."""

from __future__ import annotations

import pytest

from services.sla.loops import LEAST_BATCH, ROUND, share_of_round


@pytest.mark.parametrize(("tenants", "share"), [(1, 200), (12, 200), (24, 100), (240, LEAST_BATCH)])
def test_a_round_does_not_grow_with_the_number_of_tenants_in_need(tenants: int, share: int) -> None:
    assert share_of_round(tenants, 200) == share
    assert tenants * share <= max(ROUND, tenants * LEAST_BATCH)


def test_a_batch_is_never_larger_than_the_setting_says() -> None:
    assert share_of_round(1, 5) == 5
