"""What a text may contain: one normal form, no characters that hide or break."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Everything below the space but tab and the line ends; DEL and the C1 block; surrogates; non-characters.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_BREAKS = re.compile("[\t\n\r\u2028\u2029]")
# Marks that reorder text so that it reads otherwise than it is stored.
_REORDERING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")


def normal(text: str) -> str:
    """Return the text in NFC with one kind of line end; nothing else about it changes."""
    if text.isascii() and "\r" not in text:
        return text
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def is_clean(text: str) -> bool:
    """Whether the text holds no NUL, control character, half of a surrogate pair or non-character."""
    return text.isprintable() or _FORBIDDEN.search(text) is None


def is_clean_line(text: str) -> bool:
    """Whether the text is also one line whose order nothing turns around: what a name needs."""
    if text.isprintable():  # which nothing of the below is
        return True
    return is_clean(text) and _BREAKS.search(text) is None and _REORDERING.search(text) is None


def without_controls(text: str) -> str:
    """Return the text without characters that `is_clean` refuses: for channels where nobody could be told to send it
    again.
    """
    return _FORBIDDEN.sub("", text)
