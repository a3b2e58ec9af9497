"""The types of the condition language. All are declared: nothing is guessed from data."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct


class Type(Struct, frozen=True):
    """What a name or an expression holds; compare with `is` for scalars, by class for the others."""

    @property
    def kind(self) -> str:
        """Return the word operators are looked up by; an enum works as a string."""
        raise AttributeError("kind")


class Scalar(Type, frozen=True):
    name: str

    @property
    def kind(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


class EnumType(Type, frozen=True):
    """A string of which all values are known; comparing it with any other value is an error."""

    values: tuple[str, ...]
    name: str = "value"

    @property
    def kind(self) -> str:
        return "string"

    def __str__(self) -> str:
        return self.name


class ListType(Type, frozen=True):
    item: Type

    @property
    def kind(self) -> str:
        return "list"

    def __str__(self) -> str:
        return f"list<{self.item}>"


class MapType(Type, frozen=True):
    """Keys are strings; a missing key reads as null.

    `is_total` spares the author the warning about that, for a mapping that has an answer to every key. `key` holds the keys that can ever
    be there, where they are known beforehand: asking for any other is an error.
    """

    value: Type
    is_total: bool = False
    key: EnumType | None = None

    @property
    def kind(self) -> str:
        return "map"

    def __str__(self) -> str:
        return f"map<{self.value}>"


class RecordType(Type, frozen=True):
    """A closed set of fields. Each may be missing and then reads as null, except those in `required`.

    `required` only spares the author a warning: a required field that is null all the same raises like any other.
    """

    fields: Mapping[str, Type]
    name: str = "record"
    required: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        return "record"

    def __str__(self) -> str:
        return self.name


BOOL: Final = Scalar("bool")
INT: Final = Scalar("int")
STRING: Final = Scalar("string")
NULL: Final = Scalar("null")
MONEY: Final = Scalar("money")
INSTANT: Final = Scalar("instant")
DURATION: Final = Scalar("duration")
DATE: Final = Scalar("date")
DYN: Final = Scalar("dyn")
# The type of what has been reported already: it fits everywhere, so that one mistake is told once.
FAULTY: Final = Scalar("faulty")

ORDERED: Final = frozenset({"int", "string", "money", "instant", "duration", "date"})
