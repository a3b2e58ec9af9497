from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.domain.contacts import (
    email_address,
    looks_like_damaged_number,
    masked_email,
    masked_name,
    masked_phone,
    phone_number,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("13812341111", "+8613812341111"),
        ("+86 138-1234-1111", "+8613812341111"),
        ("0086 138 1234 1111", "+8613812341111"),
        ("１３８１２３４１１１１", "+8613812341111"),
        ("١٣٨١٢٣٤١١١١", "+8613812341111"),
        ("010-62345678", "+861062345678"),
        ("400-800-1234", "+864008001234"),
        ("+1 202 555 0143", "+12025550143"),
        ("", None),
        ("110", None),
        ("not a number", None),
        ("1.38123E+10", None),
        ("138" * 30, None),
        ("13812341111\r\nBcc: x", None),
    ],
)
def test_a_telephone_number_has_one_form(text: str, number: str | None) -> None:
    assert phone_number(text, "CN") == number


def test_the_region_of_a_number_without_country_code_is_the_tenants() -> None:
    assert phone_number("(202) 555-0143", "US") == "+12025550143"


@pytest.mark.parametrize(("text", "damaged"), [("1.38E+10", True), ("1.38123411E10", True), ("13812341111", False)])
def test_a_number_that_a_spreadsheet_cut_short_is_recognised(text: str, damaged: bool) -> None:
    assert looks_like_damaged_number(text) is damaged


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" Zhang.San@Example.COM ", "zhang.san@example.com"),
        ("zhang@例子.中国", "zhang@xn--fsqu00a.xn--fiqs8s"),
        ("a@b@c.example", None),
        ("a@example.com, b@example.com", None),
        ("a@example.com\r\nBcc: b@example.com", None),
        ("Zhang <a@example.com>", None),
        ("a..b@example.com", None),
        ("@example.com", None),
        ("a@", None),
        ("a" * 250 + "@example.com", None),
    ],
)
def test_an_address_is_exactly_one_plain_address(text: str, address: str | None) -> None:
    assert email_address(text) == address


def test_masking_shows_enough_to_recognise_and_no_more() -> None:
    assert masked_phone("+8613812341111") == "138****1111"
    assert masked_phone("+864008001234") == "400****1234"
    assert masked_email("zhang.san@example.com") == "z***@example.com"
    assert masked_name("张三丰") == "张**"


@given(st.text(max_size=80))
def test_no_text_makes_a_contact_fail(text: str) -> None:
    number = phone_number(text, "CN")
    assert number is None or (number.startswith("+") and number[1:].isascii() and number[1:].isdigit())
    address = email_address(text)
    assert address is None or (address.count("@") == 1 and address.isprintable() and " " not in address)


@given(st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True))
def test_a_masked_mobile_hides_its_middle(digits: str) -> None:
    number = phone_number(digits, "CN")
    assert number is not None
    assert masked_phone(number) == f"{digits[:3]}****{digits[-4:]}"


@pytest.mark.parametrize(
    "number", [f"1{second}{rest}" for second in range(3, 10) for rest in ("000000000", "912345678")]
)
def test_the_short_way_for_usual_numbers_says_what_the_tables_say(number: str) -> None:
    for text in (number, f"+86{number}"):
        assert phone_number(text, "CN") == phone_number(f"\u3000{text}", "CN") == f"+86{number}"
    assert phone_number(f"+86{number}", "US") == f"+86{number}"
    assert phone_number(number, "US") == phone_number(f"\u3000{number}", "US")
