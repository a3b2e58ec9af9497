"""Money: whole minor units and an ISO 4217 code. Never a float; not every currency has two decimals."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Self

import msgspec

# ISO 4217 (amendment 176), column "minor unit", of the currencies whose exponent is not 2.
_EXPONENTS: dict[str, int] = (
    dict.fromkeys(
        [
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "UYI",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ],
        0,
    )
    | dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3)
    | {"CLF": 4, "UYW": 4}
)
_AMOUNT = re.compile(r"([+-]?)(\d{1,15})(?:\.(\d{1,4}))?")
_CODE = re.compile(r"[A-Z]{3}")


class Money(msgspec.Struct, frozen=True, order=False):
    """`minor` whole minor units of `currency`: Money(48000, "CNY") is 480.00 yuan."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        exponent(self.currency)  # which refuses what is no code

    def __add__(self, other: Money) -> Money:
        return Money(self.minor + self._same(other).minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor - self._same(other).minor, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.minor, self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.minor < self._same(other).minor

    def times(self, rate: Decimal) -> Money:
        """Return the share, rounded half up to a whole minor unit (half away from zero)."""
        return Money(int((self.minor * rate).quantize(Decimal(1), ROUND_HALF_UP)), self.currency)

    def _same(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise ValueError(f"{self.currency} and {other.currency} cannot be reckoned together")
        return other

    @classmethod
    def parse(cls, amount: str, currency: str) -> Self:
        return cls(parse_minor(amount, currency), currency)

    def __str__(self) -> str:
        return f"{format_minor(self.minor, self.currency)} {self.currency}"


@lru_cache(maxsize=256)
def exponent(currency: str) -> int:
    """Return how many decimals the currency has: 2 for CNY, 0 for JPY, 3 for KWD."""
    if not _CODE.fullmatch(currency):
        raise ValueError(f"{currency!r} is no ISO 4217 code")
    return _EXPONENTS.get(currency, 2)


def parse_minor(amount: str, currency: str) -> int:
    """Return whole minor units: parse_minor("480.00", "CNY") is 48000. ValueError for more decimals than the currency has."""
    match = _AMOUNT.fullmatch(amount)
    if match is None or not amount.isascii():
        raise ValueError(f"{amount!r} is no amount such as 480.00")
    sign, whole, fraction = match[1], match[2], match[3] or ""
    places = exponent(currency)
    if len(fraction) > places:
        raise ValueError(f"{currency} has {places} decimals, {amount!r} has {len(fraction)}")
    minor: int = int(whole) * 10**places + int(fraction.ljust(places, "0") or "0")
    return -minor if sign == "-" else minor


def format_minor(minor: int, currency: str) -> str:
    """Return the amount as text with the currency's own decimals: format_minor(48000, "CNY") is "480.00"."""
    if minor < 0:
        return f"-{format_minor(-minor, currency)}"
    places = exponent(currency)
    digits = str(minor).zfill(places + 1)
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits
