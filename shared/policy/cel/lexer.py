"""Text to tokens, with CEL's literals and escapes."""

import re
from typing import Any, Final, NamedTuple

from shared.policy.cel.problems import ExpressionError, Problem, position

_TOKEN: Final = re.compile(
    r"""
    (?P<space>[ \t\r\n\f]+|//[^\n]*)
  | (?P<raw>[rR](?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*'))
  | (?P<long>\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3})
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<float>\d+\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?)
  | (?P<int>0[xX][0-9a-fA-F]+|\d+)
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE: Final = re.compile(
    r"\\(?:([abfnrtv\\'\"`?])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL
)
_SIMPLE: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
# What people type instead: other languages' operators, and the full-width marks of a Chinese keyboard.
_MEANT: Final = {
    "=": "==",
    "&": "&&",
    "|": "||",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "（": "(",
    "）": ")",
    "，": ",",
    "、": ",",
    "＝": "==",
    "！": "!",
    "？": "?",
    "：": ":",
    "＞": ">",
    "＜": "<",
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "。": ".",
    "　": "a plain space",
}


class Token(NamedTuple):
    """`kind` is the operator itself, or one of int, float, string, word, end."""

    kind: str
    value: Any
    at: int


def tokens(source: str) -> list[Token]:
    """Return the tokens, closed by one of kind `end`; raise ExpressionError with every stray character."""
    found: list[Token] = []
    problems: list[Problem] = []
    at = 0
    match_at = _TOKEN.match
    while at < len(source):
        match = match_at(source, at)
        if match is None:
            stray = source[at]
            message = "the string is not closed" if stray in "\"'" else f"unexpected character {stray!r}"
            if stray in "{}":
                message = "maps cannot be written in a condition"
            elif stray == "\\":
                message = "a backslash is only possible inside a string"
            problems.append(Problem(message, *position(source, at), _MEANT.get(stray)))
            if stray in "\"'":
                break
            at += 1
            continue
        kind, text = match.lastgroup, match.group()
        if kind == "space":
            pass
        elif kind == "op":
            found.append(Token(text, text, at))
        elif kind == "word":
            found.append(Token("word", text, at))
        elif kind == "int":
            found.append(Token("int", int(text, 16) if text[:2] in ("0x", "0X") else int(text), at))
        elif kind == "string":
            found.append(Token("string", _unescape(source, text[1:-1], at + 1, problems), at))
        elif kind == "long":
            found.append(Token("string", _unescape(source, text[3:-3], at + 3, problems), at))
        elif kind == "raw":
            quotes = 3 if text[1:4] in ('"""', "'''") else 1
            found.append(Token("string", text[1 + quotes : -quotes], at))
        elif kind == "float":
            message = "numbers with a fraction are written as money or left to a function that takes text"
            problems.append(Problem(message, *position(source, at), f'money("{text}")'))
        at = match.end()
    if problems:
        raise ExpressionError(problems)
    found.append(Token("end", None, len(source)))
    return found


def _unescape(source: str, text: str, start: int, problems: list[Problem]) -> str:
    if "\\" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        simple, *codes, stray = match.groups()
        if simple is not None:
            return _SIMPLE.get(simple, simple)
        two, four, eight, octal = codes
        hexadecimal = two or four or eight
        code = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else -1
        if code < 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            shown = match.group() if stray is None else "\\" + stray
            problems.append(Problem(f"{shown!s} is not an escape", *position(source, start + match.start()), "\\\\"))
            return ""
        return chr(code)

    return _ESCAPE.sub(replace, text)
