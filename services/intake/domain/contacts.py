"""Telephone numbers and addresses of people: one form to store and look up, one form to show to those who may not see
them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import phonenumbers

_PHONE_LIMIT: Final = 60
_PLAIN_MOBILE = re.compile(r"(?:\+86)?(1[3-9]\d{9})", re.ASCII)
_SPREADSHEET_NUMBER = re.compile(r"^\d(\.\d+)?[eE]\+?\d+$")
_MAILBOX = re.compile(r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@([A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}$")


def phone_number(text: str, region: str) -> str | None:
    """Return the number in E.164, or None for what cannot be one.

    Full-width and Arabic digits are digits. The number must be possible by its country's numbering plan; whether it is
    assigned is not asked, since the tables of numbers in use are always behind.

    Args:
        text: as given, with or without country code.
        region: ISO 3166 code of the country meant where none is given.
    """
    usual = _PLAIN_MOBILE.fullmatch(text)
    if usual is not None and (region == "CN" or text.startswith("+")):
        return f"+86{usual[1]}"  # nearly every number here; the tables below say the same, ten times as slowly
    plain = unicodedata.normalize("NFKC", text).strip()
    if not plain or len(plain) > _PHONE_LIMIT or _SPREADSHEET_NUMBER.match(plain):
        return None
    try:
        number = phonenumbers.parse(plain, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def looks_like_damaged_number(text: str) -> bool:
    """Whether a spreadsheet turned the number into 1.38E+10: its last digits are lost."""
    return _SPREADSHEET_NUMBER.match(unicodedata.normalize("NFKC", text).strip()) is not None


def email_address(text: str) -> str | None:
    """Return the address in lower case with its domain in ASCII, or None for what is not exactly one plain address."""
    plain = unicodedata.normalize("NFKC", text).strip()
    local, at, domain = plain.rpartition("@")
    if not at or len(plain) > 254:
        return None
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    address = f"{local}@{domain}".lower()
    return address if _MAILBOX.match(address) and ".." not in address and not local.startswith(".") else None


def masked_phone(number: str) -> str:
    """`+8613812341111` → `138****1111`: enough for a handler to recognise a number that the caller repeats."""
    try:
        national = phonenumbers.national_significant_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        national = number.lstrip("+")
    if len(national) >= 9:
        return f"{national[:3]}****{national[-4:]}"
    return f"****{national[-2:]}"


def masked_email(address: str) -> str:
    """`zhang.san@example.com` → `z***@example.com`."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}***@{domain}"


def masked_name(name: str) -> str:
    """`张三丰` → `张**`; how long the name is does not show."""
    return f"{name.strip()[:1]}**"
