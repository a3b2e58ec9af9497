"""An e-mail as a complaint: which source an address means, what of a message is text, and which messages no person
wrote.

`read_mail` runs in a child process with little memory and time (services/intake/mail_reader.py): a hostile message can
stop that process and nothing else. The gates on size come before any parser sees the message.
"""

from __future__ import annotations

import hashlib
import html.parser
import re
from email.header import decode_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from email.utils import getaddresses
from typing import Final, Literal

import nh3
from msgspec import Struct

from services.intake.domain.complaint import ATTACHMENT_BYTES, ATTACHMENTS_BYTES, ATTACHMENTS_LIMIT, TEXT_LIMIT
from services.intake.domain.contacts import email_address
from services.intake.domain.texts import is_clean_line, normal, without_controls

MESSAGE_BYTES: Final = 1_048_576
HEADER_BYTES: Final = 65_536
HEADER_LINES: Final = 1_000
LINE_BYTES: Final = 10_000
PARTS: Final = 100
NESTING: Final = 10
_SUBJECT_LIMIT: Final = 300
_ENCODED_WORDS: Final = 60
_TAGS: Final = {
    *("a", "b", "blockquote", "br", "div", "em", "h1", "h2", "h3", "i", "li", "ol", "p", "pre", "span", "strong"),
    *("table", "tbody", "td", "th", "thead", "tr", "u", "ul"),
}
_BLOCKS: Final = {"blockquote", "br", "div", "h1", "h2", "h3", "li", "ol", "p", "pre", "table", "tr", "ul"}

Refused = Literal["too_large", "header_too_large", "too_many_parts", "malformed", "automatic", "no_text"]


class MailAttachment(Struct, frozen=True):
    name: str
    media_type: str
    content: bytes


class Mail(Struct, frozen=True, kw_only=True, tag=True):
    """What of a message matters. The sender's address is a claim: it says where to answer, and authorises nothing."""

    sender: str | None
    sender_name: str | None
    subject: str
    text: str
    identity: str  # equal for two deliveries of one message
    attachments: tuple[MailAttachment, ...] = ()
    left_out: int = 0  # attachments over the limits


class MailRefused(Struct, frozen=True, tag=True):
    reason: Refused
    detail: str


def gate(raw: bytes) -> MailRefused | None:
    """Refuse by size alone, before anything is parsed: a header of one megabyte has cost a parser 23 GB."""
    if len(raw) > MESSAGE_BYTES:
        return MailRefused("too_large", f"a message has at most {MESSAGE_BYTES} bytes")
    end = re.search(rb"\r?\n\r?\n", raw[: HEADER_BYTES + 4])
    header = raw[: end.start()] if end else raw
    if len(header) > HEADER_BYTES:
        return MailRefused("header_too_large", f"the header of a message has at most {HEADER_BYTES} bytes")
    lines = header.split(b"\n")
    if len(lines) > HEADER_LINES or any(len(line) > LINE_BYTES for line in lines):
        return MailRefused("header_too_large", "the header has too many or too long lines")
    if len(re.findall(rb"(?im)^content-type:", raw)) > PARTS:
        return MailRefused("too_many_parts", f"a message has at most {PARTS} parts")
    return None


def read_mail(raw: bytes, *, takes_automatic: bool = False) -> Mail | MailRefused:
    """Return what a message says, or why it is not taken.

    Args:
        raw: the message as received, at most MESSAGE_BYTES.
        takes_automatic: whether messages that a program wrote are taken too: a web form may send through a mailer.

    Source: RFC 5322 and 2045-2047 for the form, RFC 3834 for automatic messages.
    """
    if refused := gate(raw):
        return refused
    message = BytesParser(policy=compat32).parsebytes(raw)
    if not takes_automatic and (why := automatic(message)):
        return MailRefused("automatic", why)
    parts = _parts(message)
    if parts is None:
        return MailRefused("too_many_parts", f"parts of a message are nested at most {NESTING} deep")
    text = _text_of(parts)
    subject = _line(_decoded(message.get("Subject", "")))[:_SUBJECT_LIMIT]
    attachments, left_out = _attachments(parts)
    if not text and not subject and not attachments:
        return MailRefused("no_text", "the message holds no text")
    sender_name, sender = _sender(message)
    identity = hashlib.sha256(
        "\x1f".join((str(message.get("Message-ID", "")).strip(), sender or "", subject, text)).encode(
            "utf-8", "replace"
        )
    ).hexdigest()
    return Mail(
        sender=sender,
        sender_name=sender_name,
        subject=subject,
        text=text[:TEXT_LIMIT],
        identity=identity,
        attachments=attachments,
        left_out=left_out,
    )


def automatic(message: Message) -> str | None:
    """Say why no person wrote this message, or None. To answer it would make two programs write to each other for ever.

    Source: RFC 3834 §2 and §5; RFC 3464 and 6522 for reports of delivery; RFC 2919 for lists.
    """
    submitted = str(message.get("Auto-Submitted", "no")).partition(";")[0].strip().lower()
    if submitted not in ("", "no"):
        return "the message was submitted automatically (RFC 3834)"
    if str(message.get("Precedence", "")).strip().lower() in ("bulk", "junk", "list", "auto_reply"):
        return "the message was sent in bulk or by a list"
    if message.get("List-Id") is not None or message.get("List-Unsubscribe") is not None:
        return "the message came through a list"
    if message.get("X-Auto-Response-Suppress") is not None and message.get("X-Autoreply") is not None:
        return "the message is an automatic reply"
    if message.get_content_type() == "multipart/report":
        return "the message reports on a delivery"
    if message.get("X-Recourse-Notice") is not None:
        return "the message is a notice of ours that came back"
    return None


def is_null_path(return_path: str | None) -> bool:
    """Whether the envelope names no sender: bounces and automatic replies do so (RFC 5321 §4.5.5)."""
    return return_path is None or return_path.strip() in ("", "<>")


class Recipient(Struct, frozen=True):
    """What a recipient's address says: the source's token, or the tenant's slug and the source's name."""

    token: str | None = None
    tenant: str | None = None
    source: str | None = None


def recipient(address: str) -> Recipient | None:
    """Return what an address of ours means, or None.

    `<token>@any.domain`, or `complaints+<source>@<tenant>.any.domain`.
    """
    local, _, domain = address.strip().strip("<>").rpartition("@")
    local, domain = local.lower(), domain.lower()
    if not local or len(address) > 320:
        return None
    if local.startswith("complaints+"):
        source = local.removeprefix("complaints+")
        tenant = domain.partition(".")[0]
        if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", source) and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", tenant):
            return Recipient(tenant=tenant, source=source)
        return None
    return Recipient(token=local) if re.fullmatch(r"[a-z0-9]{20,40}", local) else None


def _parts(message: Message) -> list[Message] | None:
    """Return the leaves of a message in order; None when it is nested too deeply or falls into too many parts."""
    leaves: list[Message] = []
    pending: list[tuple[Message, int]] = [(message, 0)]
    while pending:
        part, depth = pending.pop(0)
        if depth > NESTING or len(leaves) + len(pending) > PARTS:
            return None
        inner = part.get_payload()
        if isinstance(inner, list):
            pending = [(child, depth + 1) for child in inner if isinstance(child, Message)] + pending
        else:
            leaves.append(part)
    return leaves


def _text_of(parts: list[Message]) -> str:
    """Return the plain text; what is only there as HTML is cleaned by an allow-list first and then told as text."""
    for wanted in ("text/plain", "text/html"):
        found = [part for part in parts if part.get_content_type() == wanted and not _is_attached(part)]
        texts = [_characters(part) for part in found]
        if wanted == "text/html":
            texts = [text_of_html(text) for text in texts]
        joined = "\n\n".join(text for text in (_tidy(text) for text in texts) if text)
        if joined:
            return joined
    return ""


def text_of_html(source: str) -> str:
    """Return the visible text of an HTML document. Scripts, styles and whatever could be loaded are gone before it is
    read.
    """
    cleaned = nh3.clean(source, tags=_TAGS, attributes={}, link_rel=None)
    reader = _Visible()
    reader.feed(cleaned)
    reader.close()
    return "".join(reader.pieces)


class _Visible(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def _characters(part: Message) -> str:
    content = _content(part)
    charset = str(part.get_content_charset("utf-8"))
    # GBK and GB2312 are subsets of GB18030, and are often declared where more is meant.
    named = "gb18030" if charset in ("gb2312", "gbk", "gb_2312-80") else charset
    for encoding in (named, "utf-8", "gb18030"):
        try:
            return content.decode(encoding)
        except (LookupError, UnicodeError):
            continue
    return content.decode("utf-8", "replace")


def _content(part: Message) -> bytes:
    try:
        payload = part.get_payload(decode=True)
    except (ValueError, LookupError):  # a transfer encoding that is damaged beyond what the parser forgives
        return b""
    return payload if isinstance(payload, bytes) else b""


def _is_attached(part: Message) -> bool:
    return str(part.get("Content-Disposition", "")).strip().lower().startswith("attachment") or bool(
        part.get_filename()
    )


def _attachments(parts: list[Message]) -> tuple[tuple[MailAttachment, ...], int]:
    taken: list[MailAttachment] = []
    left_out = total = 0
    for place, part in enumerate(parts):
        if not _is_attached(part):
            continue
        content = _content(part)
        total += len(content)
        if len(content) > ATTACHMENT_BYTES or total > ATTACHMENTS_BYTES or len(taken) == ATTACHMENTS_LIMIT:
            left_out += 1
            total -= len(content)
            continue
        taken.append(MailAttachment(_file_name(part, place), part.get_content_type()[:120], content))
    return tuple(taken), left_out


def _file_name(part: Message, place: int) -> str:
    """Return the last part of the name: a path in it would be an attempt to write somewhere."""
    name = _line(_decoded(part.get_filename() or "")).replace("\\", "/").rpartition("/")[2].strip(". ")[:100]
    return name if name and is_clean_line(name) else f"attachment-{place}"


def _sender(message: Message) -> tuple[str | None, str | None]:
    """Return name and address of the one author; two authors are none that could be answered."""
    stated = [str(value)[:1_000] for value in message.get_all("From", [])]
    found = getaddresses(stated) if len(stated) == 1 else []
    if len(found) != 1:
        return None, None
    name, address = found[0]
    return _line(_decoded(name))[:200] or None, email_address(address)


def _decoded(value: object) -> str:
    """Return a header with its encoded words read (RFC 2047); as it stands where it cannot be."""
    text = str(value)[:4_000]
    if text.count("=?") > _ENCODED_WORDS:
        return text
    pieces: list[str] = []
    try:
        for piece, charset in decode_header(text):
            if isinstance(piece, str):
                pieces.append(piece)
            else:
                named = "gb18030" if (charset or "").lower() in ("gb2312", "gbk") else (charset or "utf-8")
                pieces.append(piece.decode(named, "replace"))
    except (LookupError, ValueError):
        return text
    return "".join(pieces)


def _line(text: str) -> str:
    return normal(" ".join(without_controls(text.encode("utf-8", "replace").decode()).split()))


def _tidy(text: str) -> str:
    plain = without_controls(normal(text.encode("utf-8", "replace").decode()))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", plain)).strip()
