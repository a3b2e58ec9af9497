from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.api.vault import masked_text
from services.intake.domain.complaint import Contact

ZHANG = Contact(name="张三丰", phone="+8613812341111", address="幸福路42号")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("张三丰等了3小时", "张**等了3小时"),
        ("请打13812341111", "请打****"),
        ("请打138 1234-1111，或 zhang@example.com", "请打****，或 ***@***"),
        ("住幸福路42号2026年", "住***2026年"),
        ("2026-03-02 等了100元", "**** 等了100元"),
        ("身份证110101199003070011", "身份证****"),
    ],
)
def test_what_identifies_a_person_is_masked(text: str, shown: str) -> None:
    assert masked_text(text, ZHANG) == shown


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_complainants_number_never_shows(before: str, after: str) -> None:
    assert "13812341111" not in masked_text(f"{before}13812341111{after}", ZHANG)
