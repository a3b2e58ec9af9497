from __future__ import annotations

import resource
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.intake.domain.complaint import ATTACHMENTS_LIMIT
from services.intake.domain.mail import (
    HEADER_BYTES,
    MESSAGE_BYTES,
    PARTS,
    Mail,
    MailRefused,
    Recipient,
    is_null_path,
    read_mail,
    recipient,
    text_of_html,
)


def a_mail(text: str = "等了三个小时", **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = headers.pop("sender", "张三 <zhang.san@example.com>")
    message["To"] = "complaints+front@hospital.example"
    message["Subject"] = headers.pop("subject", "投诉：等候时间")
    message["Message-ID"] = "<1@example.com>"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


def read(raw: bytes | EmailMessage, **options: Any) -> Mail:
    result = read_mail(bytes(raw) if isinstance(raw, EmailMessage) else raw, **options)
    assert isinstance(result, Mail), result
    return result


def refused(raw: bytes | EmailMessage) -> str:
    result = read_mail(bytes(raw) if isinstance(raw, EmailMessage) else raw)
    assert isinstance(result, MailRefused), result
    return result.reason


def test_a_message_of_a_person_is_read() -> None:
    mail = read(a_mail())
    assert mail.sender == "zhang.san@example.com"
    assert mail.sender_name == "张三"
    assert mail.subject == "投诉：等候时间"
    assert mail.text == "等了三个小时"


@pytest.mark.parametrize(
    ("charset", "declared"), [("gb18030", "gb18030"), ("gb18030", "gb2312"), ("utf-8", "utf-8"), ("utf-8", "x-unknown")]
)
def test_texts_are_read_in_the_charset_they_are_in(charset: str, declared: str) -> None:
    body = "投诉内容：態度㐀".encode(charset)
    header = f"From: a@example.com\r\nContent-Type: text/plain; charset={declared}\r\n"
    assert read(header.encode() + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + body).text == "投诉内容：態度㐀"


def test_html_alone_is_cleaned_and_told_as_text() -> None:
    message = a_mail()
    message.set_content(
        "<style>p{x}</style><script>alert(1)</script><p>第一段</p><img src='http://x/1.png' onerror=alert(1)>"
        "<p>第二段 &lt;b&gt;</p><svg onload=alert(1)>",
        subtype="html",
    )
    text = read(message).text
    assert text == "第一段\n第二段 <b>"


def test_the_plain_text_is_preferred_to_html() -> None:
    message = a_mail("plain")
    message.add_alternative("<p>html</p>", subtype="html")
    assert read(message).text == "plain"


@pytest.mark.parametrize(
    "source",
    [
        "<scr<script>ipt>alert(1)</script>",
        "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
        "<a href='javascript:alert(1)'>x</a>",
        "<meta http-equiv=refresh content='0;url=http://x'>",
        "<!--<img src=x onerror=alert(1)>-->",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    ],
)
def test_nothing_of_a_hostile_document_can_run_or_load(source: str) -> None:
    text = text_of_html(source)
    assert "<script" not in text.lower()
    assert "onerror" not in text.lower() or "<img" not in text.lower()


@pytest.mark.parametrize(
    "headers",
    [
        {"Auto_Submitted": "auto-replied"},
        {"Auto_Submitted": "auto-generated; owner-email=x"},
        {"Precedence": "bulk"},
        {"Precedence": "list"},
        {"List_Id": "<news.example.com>"},
        {"X_Recourse_Notice": "1"},
    ],
)
def test_what_no_person_wrote_is_not_taken(headers: dict[str, str]) -> None:
    assert refused(a_mail(**headers)) == "automatic"


def test_a_bounce_is_not_taken() -> None:
    raw = (
        b"From: MAILER-DAEMON@x.example\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"
    )
    assert refused(raw) == "automatic"
    assert is_null_path("<>")
    assert is_null_path(None)
    assert not is_null_path("a@example.com")


def test_a_source_may_take_what_a_form_sends() -> None:
    assert read(a_mail(Auto_Submitted="auto-generated"), takes_automatic=True).text == "等了三个小时"
    assert read(a_mail(Auto_Submitted="no")).text == "等了三个小时"


def test_size_is_checked_before_anything_is_parsed() -> None:
    assert refused(b"From: a@example.com\r\n\r\n" + b"x" * MESSAGE_BYTES) == "too_large"
    assert refused(b"Subject: " + b"x" * (HEADER_BYTES + 1) + b"\r\n\r\nx") == "header_too_large"
    assert refused(b"X: y\r\n" * 5000 + b"\r\nx") == "header_too_large"
    assert refused(b"To: " + b"a@b.example, " * 4000 + b"\r\n\r\nx") == "header_too_large"
    assert refused(b"From: a@example.com\r\n\r\n" + b"Content-Type: text/plain\r\n" * (PARTS + 1)) == "too_many_parts"


def test_parts_nested_deeply_are_refused() -> None:
    raw = b"From: a@example.com\r\n"
    for depth in range(20):
        raw += f"Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n".encode()
    assert refused(raw + b"Content-Type: text/plain\r\n\r\nx\r\n") == "too_many_parts"


def test_attachments_are_bounded_and_their_names_lead_nowhere() -> None:
    message = a_mail()
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="../../etc/票据.pdf")
    for number in range(ATTACHMENTS_LIMIT + 2):
        message.add_attachment(b"x", maintype="image", subtype="png", filename=f"{number}.png")
    message.add_attachment(b"x" * 140_000, maintype="image", subtype="png", filename="big.png")
    mail = read(message)
    assert len(mail.attachments) == ATTACHMENTS_LIMIT
    assert mail.left_out == 4
    assert mail.attachments[0].name == "票据.pdf"
    assert mail.attachments[0].content == b"%PDF"


@pytest.mark.parametrize(
    "sender", ["a@example.com, b@example.com", "not an address", '"x\\"" <a@b@c>', "<>", "=?utf-8?b?///?= <x>"]
)
def test_a_sender_that_is_not_one_address_is_none(sender: str) -> None:
    raw = f"From: {sender}\r\nSubject: x\r\n\r\ntext".encode()
    assert read(raw).sender is None


def test_two_deliveries_of_one_message_are_one_and_a_borrowed_id_is_another() -> None:
    first, again = read(a_mail()), read(b"Received: by x\r\n" + bytes(a_mail()))
    assert first.identity == again.identity
    assert read(a_mail("other text")).identity != first.identity
    assert read(a_mail(sender="b@example.com")).identity != first.identity


def test_a_subject_is_one_line() -> None:
    raw = b"From: a@example.com\r\nSubject: =?utf-8?q?one=0D=0ABcc:_x=00?=\r\n\r\ntext"
    assert read(raw).subject == "one Bcc: x"


def test_a_header_full_of_encoded_words_costs_nothing() -> None:
    raw = b"From: a@example.com\r\nSubject: " + b"=?utf-8?q?x?= " * 3000 + b"\r\n\r\ntext"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    read_mail(raw)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.2


@pytest.mark.parametrize(
    ("address", "meaning"),
    [
        ("abcdefghij0123456789@mail.example", Recipient(token="abcdefghij0123456789")),
        ("<Complaints+Front@Hospital.mail.example>", Recipient(tenant="hospital", source="front")),
        ("complaints+@hospital.example", None),
        ("complaints+a b@hospital.example", None),
        ("complaints+front@", None),
        ("postmaster@mail.example", None),
        ("x" * 400, None),
        ("", None),
    ],
)
def test_an_address_means_a_source(address: str, meaning: Recipient | None) -> None:
    assert recipient(address) == meaning


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_no_bytes_make_reading_fail(raw: bytes) -> None:
    assert isinstance(read_mail(raw), Mail | MailRefused)


@settings(deadline=None)
@given(
    st.sampled_from(
        ["Content-Type", "From", "Subject", "Content-Disposition", "Content-Transfer-Encoding", "Message-ID"]
    ),
    st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=120),
    st.binary(max_size=200),
)
def test_no_header_makes_reading_fail(name: str, value: str, body: bytes) -> None:
    raw = f"{name}: {value}".encode("latin-1") + b"\r\nSubject: s\r\n\r\n" + body
    assert isinstance(read_mail(raw), Mail | MailRefused)
