"""Request bodies: from bytes to a checked Struct, or a refusal that points at every mistake.

msgspec decodes straight into the handler's type, and stops at the first mistake. Only then, a second pass over the
plain values collects them all, each with its RFC 6901 pointer.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import types
import typing
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.types.empty import Empty

from shared.errors import FieldError, MalformedError, TooLargeError, UnavailableError, UnsupportedMediaError
from shared.telemetry import without_values

MAX_DEPTH = 32
MAX_ERRORS = 50


class BadJsonError(MalformedError):
    slug = "bad-json"
    title = "The body is not JSON."


class BadEncodingError(MalformedError):
    slug = "bad-encoding"
    title = "The body is not UTF-8, or holds characters that no text may hold."


class TooDeepError(MalformedError):
    slug = "too-deep"
    title = "The body is nested too deeply."


class DuplicateKeyError(MalformedError):
    slug = "duplicate-key"
    title = "An object in the body names a key twice."


class BodyMissingError(MalformedError):
    slug = "body-missing"
    title = "The request needs a body."


def decode(body: bytes, kind: Any) -> Any:
    """Return the body as `kind`. MalformedError (or a subclass) with every mistake that can be told apart.

    Refused whatever the kind: bytes that are not UTF-8, NUL, lone surrogates, keys named twice, more than 32 levels.
    """
    plain = _parse(body)
    try:
        return _decoder(kind).decode(body)
    except msgspec.ValidationError as error:
        errors = mistakes(plain, kind)
        if not errors:
            errors = [FieldError(_pointer_of(str(error)), _said(error))]
        raise MalformedError("The body does not fit its schema.", errors=errors[:MAX_ERRORS]) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadJsonError(_place(error)) from None


def _parse(body: bytes) -> Any:
    """Return the plain values, having refused what no body may hold. The standard library's parser tells duplicate keys apart."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadEncodingError(f"Byte {error.start} is not UTF-8; send UTF-8.") from None
    if text.startswith("\ufeff"):
        raise BadJsonError("The body begins with a byte order mark; send plain UTF-8.")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise TooDeepError(f"At most {MAX_DEPTH} levels.")
    try:
        plain = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise BadJsonError(f"Line {error.lineno}, column {error.colno}.") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DuplicateKeyError):
            raise
        raise BadJsonError("A number is too long, or not a number of JSON.") from None
    if "\x00" in text or "\\u" in text:
        _refuse_characters(plain, "")
    return plain


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DuplicateKeyError("Name each key once.")
    return found


def _no_constant(_: str) -> Any:
    raise ValueError


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant)


@functools.lru_cache(maxsize=1_000)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _depth(text: str) -> int:
    """Return the deepest nesting, reading no further than one level too many."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                return deepest
        elif character in "]}":
            depth -= 1
    return deepest


def _refuse_characters(value: Any, pointer: str) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise BadEncodingError(errors=[FieldError(pointer, "holds the character NUL")])
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise BadEncodingError(errors=[FieldError(pointer, "holds half of a surrogate pair")])
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_characters(key, pointer)
            _refuse_characters(item, f"{pointer}/{_escaped(key)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_characters(item, f"{pointer}/{index}")


# -- the second pass -------------------------------------------------------------------------------------------------


def mistakes(value: Any, kind: Any, pointer: str = "") -> list[FieldError]:
    """Return everything that keeps the plain `value` from being a `kind`, as far as it can be told apart."""
    found: list[FieldError] = []
    _check(value, kind, pointer, found)
    return found


def _check(value: Any, kind: Any, pointer: str, found: list[FieldError]) -> None:
    if len(found) >= MAX_ERRORS:
        return
    bare = _bare(kind)
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    before = len(found)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct) and isinstance(value, dict):
        _check_struct(value, bare, pointer, found)
    elif (origin in (list, set, frozenset) and isinstance(value, list) and arguments) or (
        origin is tuple and isinstance(value, list) and len(arguments) == 2 and arguments[1] is Ellipsis
    ):
        for index, item in enumerate(value):
            _check(item, arguments[0], f"{pointer}/{index}", found)
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            _check(item, arguments[1], f"{pointer}/{_escaped(key)}", found)
    elif origin in (typing.Union, types.UnionType):
        _check_union(value, arguments, pointer, found)
    if len(found) == before:  # lengths, patterns, cross-field rules: whatever concerns this value as a whole
        try:
            msgspec.convert(value, kind, strict=True)
        except msgspec.ValidationError as error:
            found.append(FieldError(pointer + _pointer_of(str(error)), _said(error)))


def _check_struct(value: dict[str, Any], kind: type[msgspec.Struct], pointer: str, found: list[FieldError]) -> None:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    tag_field = kind.__struct_config__.tag_field
    if kind.__struct_config__.forbid_unknown_fields:
        for key in value:
            if key not in fields and key != tag_field:
                near = difflib.get_close_matches(key, [name for name in fields if name not in value], 1, 0.6)
                found.append(
                    FieldError(f"{pointer}/{_escaped(key)}", "is not a field that we know", near[0] if near else None)
                )
    for name, field in fields.items():
        if name in value:
            _check(value[name], hints[field.name], f"{pointer}/{_escaped(name)}", found)
        elif field.required:
            found.append(FieldError(f"{pointer}/{_escaped(name)}", "is missing"))


def _check_union(value: Any, members: tuple[Any, ...], pointer: str, found: list[FieldError]) -> None:
    structs = [each for each in map(_bare, members) if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    if isinstance(value, dict) and structs:
        if len(structs) > 1:
            tagged = {each.__struct_config__.tag: each for each in structs}
            chosen = tagged.get(value.get(structs[0].__struct_config__.tag_field or "type"))
            structs = [chosen] if chosen else []
        if structs:
            _check(value, structs[0], pointer, found)
        return
    containers = [each for each in members if typing.get_origin(_bare(each)) in (list, tuple, dict, set, frozenset)]
    for each in containers:
        if isinstance(value, dict) == (typing.get_origin(_bare(each)) is dict) and isinstance(value, dict | list):
            _check(value, each, pointer, found)
            return


def _bare(kind: Any) -> Any:
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return getattr(kind, "__value__", kind)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _pointer_of(message: str) -> str:
    """Return msgspec's "… - at `$.items[2].name`" as a pointer, "/items/2/name"."""
    _, found, path = message.rpartition(" - at `$")
    if not found:
        return ""
    return path[:-1].replace("[...]", "").replace("[", "/").replace("]", "").replace(".", "/")


def _said(error: Exception) -> str:
    return without_values(str(error).partition(" - at `")[0])


def _place(error: Exception) -> str:
    text = str(error)
    return text[text.index("(") + 1 : -1].capitalize() + "." if "(byte" in text else ""


# -- the request -------------------------------------------------------------------------------------------------------


def header(scope: Any, name: bytes) -> bytes | None:
    """Return the first header of that name, in lower case, straight from what came in: for what every request is asked."""
    for each, value in scope["headers"]:
        if each == name:
            return bytes(value)
    return None


class RecourseRequest(Request[Any, Any, Any]):
    """Litestar's request with our decoding: a handler's `data: SomeStruct` arrives decoded strictly, or the request is refused."""

    _taken: bytes | None = None  # read, and found to be what may be read

    async def body(self) -> bytes:
        if self._taken is not None:
            return self._taken
        encoding = header(self.scope, b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            raise UnsupportedMediaError("Send the body as it is; compressed bodies are not read.")
        body = await self._whole()
        caller = self.scope["state"].get("caller")
        if caller is not None and len(body) > max(
            caller.limits.body_bytes, self.route_handler.opt.get("body_bytes", 0)
        ):
            raise TooLargeError(f"The plan allows bodies of {caller.limits.body_bytes} bytes.")
        if caller is not None:
            self._taken = body
        return body

    async def _whole(self) -> bytes:
        """The body as it came, read once; TooLargeError as soon as it is."""
        if isinstance(self._body, bytes):
            return self._body
        read: Any = self._connection_state.body
        if isinstance(read, bytes):
            self._body = read
            return read
        most = self.route_handler.resolve_request_max_body_size() or math.inf
        announced = header(self.scope, b"content-length")
        if announced is not None and announced.isdigit() and int(announced) > most:
            raise TooLargeError()
        parts: list[bytes] = []
        taken = 0
        while True:
            event: Any = await self.receive()
            if event["type"] == "http.disconnect":
                raise UnavailableError("The sender broke off.")
            part: bytes = event.get("body", b"")
            taken += len(part)
            if taken > most:
                raise TooLargeError()
            parts.append(part)
            if not event.get("more_body", False):
                break
        self.is_connected = False
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._body = self._connection_state.body = body
        return body

    async def json(self) -> Any:
        if self._json is Empty:
            if header(self.scope, b"content-type") != b"application/json":  # else it surely is
                kind, charset = self.content_type[0], self.content_type[1].get("charset", "utf-8")
                if kind != "application/json" or charset.lower() not in ("utf-8", "utf8"):
                    raise UnsupportedMediaError("Send 'Content-Type: application/json', in UTF-8.")
            body = await self.body()
            if not body.strip():
                raise BodyMissingError()
            field = getattr(self.route_handler, "parsed_data_field", None)
            self._json = decode(body, field.annotation if field is not None else Any)
        return self._json
