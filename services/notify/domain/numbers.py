"""Phone numbers: which may be written to, and which range they belong to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import phonenumbers
from msgspec import Struct

Refusal = Literal["number_malformed", "number_premium", "number_landline", "country_not_allowed"]

_PREMIUM = {
    phonenumbers.PhoneNumberType.PREMIUM_RATE,
    phonenumbers.PhoneNumberType.SHARED_COST,
    phonenumbers.PhoneNumberType.PERSONAL_NUMBER,
    phonenumbers.PhoneNumberType.UAN,
    phonenumbers.PhoneNumberType.TOLL_FREE,
    phonenumbers.PhoneNumberType.PAGER,
    phonenumbers.PhoneNumberType.VOICEMAIL,
}
_LANDLINE = {phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.VOIP}
_RANGE_DIGITS = 4  # numbers that differ only in these belong to one range


class Mobile(Struct, frozen=True):
    """A number that an SMS may go to, in E.164, and its range."""

    number: str
    prefix: str


def mobile(number: str, countries: Collection[str]) -> Mobile | Refusal:
    """Return the number to write to, or why none is written to.

    Args:
        number: E.164, as the vault gives it. Digits of other scripts are no digits here.
        countries: ISO codes in which the tenant's provider may be used; empty: every country.
    """
    if not number.isascii():
        return "number_malformed"
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return "number_malformed"
    if not phonenumbers.is_valid_number(parsed):
        return "number_malformed"
    kind = phonenumbers.number_type(parsed)
    if kind in _PREMIUM:
        return "number_premium"
    if kind in _LANDLINE:
        return "number_landline"
    if countries and phonenumbers.region_code_for_number(parsed) not in countries:
        return "country_not_allowed"
    written = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return Mobile(written, written[:-_RANGE_DIGITS])
