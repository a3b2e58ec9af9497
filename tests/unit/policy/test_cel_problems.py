"""What an author is told: the place, the reason, and what was probably meant."""

import pytest

from shared.policy.cel import BOOL, DYN, INT, MONEY, EnumType, ExpressionError, Problem, Type, near_miss
from tests.unit.policy.cel_scope import SEVERITY, compiled


def problems(source: str, want: Type = BOOL) -> list[Problem]:
    with pytest.raises(ExpressionError) as caught:
        compiled(source, want)
    return caught.value.problems


@pytest.mark.parametrize(
    ("source", "column", "message", "suggestion"),
    [
        # characters
        ("n = 7", 3, "unexpected character '='", "=="),
        ("n == 7 & n == 8", 8, "unexpected character '&'", "&&"),
        ("n == 7 | n == 8", 8, "unexpected character '|'", "||"),
        ("data.step == “callback”", 14, "unexpected character '“'", '"'),
        ("has（data.step)", 4, "unexpected character '（'", "("),
        ('data.step == "callback', 14, "the string is not closed", None),
        (r'data.step == "\q"', 15, r"\q is not an escape", "\\\\"),
        (r'data.step == "\uD800"', 15, r"\uD800 is not an escape", "\\\\"),
        ("n > 1.5", 5, "numbers with a fraction are written as money", 'money("1.5")'),
        ("n == ７", 6, "unexpected character '７'", None),
        ("{} == n", 1, "maps cannot be written", None),
        ("n == 9223372036854775808", 6, "out of the range of 64 bits", None),
        # grammar
        ("", 1, "the expression is empty", None),
        ("n == 7 and n == 8", 8, "found and", "&&"),
        ("n == 7 or n == 8", 8, "found or", "||"),
        ("not has(data.step)", 1, "found not", "!"),
        ("n == 7 &&", 10, "the expression ends", None),
        ("(n == 7", 8, "expected ')' to close the bracket, but the expression ends", None),
        ("n == 7)", 7, "expected an operator or the end", None),
        ("n in [1, 2", 11, "expected ']'", None),
        ("n ? 1", 6, "expected ':'", None),
        ("data.", 6, "expected the name of a field", None),
        ("data.true", 6, "true cannot name a field here", '["true"]'),
        ("for == 1", 1, "for is a reserved word", None),
        ("items.exists(item.price == null)", 18, "exists is written exists(item, condition on item)", None),
        ("items.exists(1, true)", 14, "expected a name for the item", None),
        ("has(data)", 1, "has takes one field", None),
        ("max(1, )", 8, "expected another argument", None),
        # names
        ("sevrity == 'x'", 1, "unknown name sevrity", None),
        ("severity == 'severe'", 1, "unknown name severity", "complaint.severity"),
        ("complain.severity == 'severe'", 1, "unknown name complain", "complaint"),
        ("complaint.sevrity == 'severe'", 11, "complaint has no field sevrity", "severity"),
        ("complaint.handler.uint == 'a'", 19, "complaint.handler has no field uint", "unit"),
        ('data["stp"] == "meeting"', 6, "data has no field stp", "step"),
        ("n.x == 1", 3, "n is a number and has no fields", None),
        ("data.tags.injury == true", 11, "data.tags is a list of string", 'in [..] or exists(item, item == "injury")'),
        ("max == 1", 1, "max is a function", "max(…)"),
        ("maxx(1, 2) == 2", 1, "unknown function maxx", "max"),
        ("fields.note.matches('a+')", 13, "unknown function matches", "startsWith, endsWith or contains"),
        ("exists(items, true)", 1, "unknown function exists", "list.exists(item, …)"),
        ("contains(fields.note, 'x')", 1, "contains is written x.contains(…)", "x.contains(…)"),
        ("items.exists(n, n.name == 'bed')", 7, "n is already a name here", "another name than n"),
        # known values
        ('complaint.severity == "sever"', 23, '"sever" is not a known severity', '"severe"'),
        ('"Severe" == complaint.severity', 1, '"Severe" is not a known severity', '"severe"'),
        ('complaint.severity in ["simple", "avrage"]', 34, '"avrage" is not a known severity', '"average"'),
        ('data.step != "letter"', 14, '"letter" is not a known step; it is one of callback, site_visit, meeting', None),
        ('state_of("replay") == "x"', 10, '"replay" is not a known clock', '"reply"'),
        ('default(data.step, "metting") == "meeting"', 20, '"metting" is not a known step', '"meeting"'),
        ("complaint.severity == data.step", 23, "step (text) is never severity (text)", None),
        ('complaint.severity > "simple"', 20, "would compare letters", 'in ["severe", …]'),
        # types
        ("fields.loss_cny > 500", 17, "money cannot be compared with a number", 'money("500")'),
        ('fields.loss_cny == "500.00"', 17, "money cannot be compared with text", 'money("500.00")'),
        ('data.took > "24h"', 11, "a length of time cannot be compared with text", 'duration("24h")'),
        ("data.took > 24", 11, "a length of time cannot be compared with a number", 'duration("24h")'),
        (
            "complaint.received_at < '2026-03-01T00:00:00Z'",
            23,
            "an instant cannot",
            'timestamp("2026-03-01T00:00:00Z")',
        ),
        ('data.done_on == "2026-03-01"', 14, "a date cannot be compared with text", 'date("2026-03-01")'),
        ("data.done_on < now", 14, "a date cannot be compared with an instant", None),
        ('n == "7"', 3, "a number cannot be compared with text", "7"),
        ("fields.note == 7", 13, "text cannot be compared with a number", '"7"'),
        ('complaint.anonymous == "yes"', 21, "a condition cannot be compared with text", "true"),
        ("n + 'a' == 'b'", 3, "a number cannot be used with text", None),
        ("fields.loss_cny / 2 > money('1')", 17, "money is not divided here", None),
        ("fields.loss_cny * fields.paid_cny > money('1')", 17, "money cannot be used with money", None),
        ("data.anything + data.anything == 2", 15, "neither side has a known type", "int(…)"),
        ("n && true", 1, "&& needs a condition, not a number", "n != null"),
        ("!fields.note", 2, "! needs a condition, not text", "fields.note != null"),
        ("-complaint.anonymous == 1", 1, "- needs a number, not a condition", "!"),
        ("n < null", 5, "< has no meaning for null", "!= null"),
        ("1 < n < 3", 7, "a condition cannot be compared with a number", None),
        ("data == complaint", 6, "records cannot be compared", None),
        ("data.tags < data.tags", 11, "< has no meaning for a list of string", None),
        ("n in data.tags", 3, "a number is never in a list of string", None),
        ('"injury" in "injury, delay"', 10, "in needs a list or a map", "text.contains(part)"),
        ('complaint.severity in "severe"', 20, "in needs a list or a map", 'complaint.severity in ["severe"]'),
        ("'step' in data", 8, "in needs a list or a map on its right, not a record", "has(record.field)"),
        ("n.all(x, true)", 3, "all goes through a list or a map, not a number", None),
        ("[1, 'a'] == null", 5, "a list holds one type, here int and string", None),
        ("(n > 1 ? 1 : 'a') == 1", 8, "both have to be of one type", '"1"'),
        ("labels[1] == 'a'", 8, "the key of a map is text, not a number", '"1"'),
        ("data.tags['a'] == 'b'", 11, "data.tags is a list of string", 'in [..] or exists(item, item == "a")'),
        ("size(n) == 1", 1, "size does not take (int)", None),
        ("duration(5) > data.took", 10, "this argument of duration is text, not a number", '"5"'),
        ("duration() > data.took", 1, "duration is not called with 0 arguments", "duration(string)"),
        ('data.took > duration("24x")', 22, "duration: not a length of time", None),
        ('now > timestamp("2026-13-01T00:00:00Z")', 17, "timestamp: not an instant", None),
        ('data.done_on > date("01.03.2026")', 21, "date: not a date", None),
        ('fields.loss_cny > money("1,000")', 25, "money: not an amount of CNY", None),
        ('fields.loss_cny > money("0.005")', 25, "money: not an amount of CNY", None),
        ("1 / 0 == 1", 1, "this always fails: division by zero", None),
        ("n", 1, "this place needs a condition, not a number", "n != null"),
    ],
)
def test_a_mistake_is_told_with_its_place(source: str, column: int, message: str, suggestion: str | None) -> None:
    first = problems(source)[0]
    assert message in first.message
    assert (first.line, first.column, first.suggestion) == (1, column, suggestion)


def test_every_mistake_is_told_at_once_and_only_once() -> None:
    found = problems(
        'data.stp == "callback"\n'
        '  && complaint.severity in ["sever", "simpel"]\n'
        "  && foo(n) > 3 && fields.loss > money('a')\n"
        "  && unknown.field.below == 1"
    )
    assert [(one.line, one.column) for one in found] == [(1, 6), (2, 29), (2, 38), (3, 6), (3, 27), (3, 40), (4, 6)]


def test_all_stray_characters_are_told_at_once() -> None:
    assert [(one.column, one.suggestion) for one in problems("n ＝ 7 ，n ≥ 8")] == [(3, "=="), (7, ","), (10, ">=")]


def test_lines_and_columns_count_characters() -> None:
    (problem,) = problems("// 一条注释\nfields.note == '中文' && nn == 1")
    assert (problem.line, problem.column) == (2, 24)


def test_the_message_reads_as_a_sentence() -> None:
    with pytest.raises(ExpressionError, match=r'1:23: "sever" is not a known severity \(did you mean "severe"\?\)'):
        compiled('complaint.severity == "sever"', BOOL)


@pytest.mark.parametrize(
    ("source", "want", "message"),
    [
        ("n", MONEY, "this place is money, not a number"),
        ("500", MONEY, "this place is money, not a number"),
        ("n > 1 ? money('1') : 2", MONEY, "?: gives money or a number"),
        ('"sever"', SEVERITY, '"sever" is not a known severity'),
        ('n > 1 ? "severe" : "simpel"', SEVERITY, '"simpel" is not a known severity'),
        ("data.step", SEVERITY, "step (text) is never severity (text)"),
        ("n > 1", INT, "this place is a number, not a condition"),
        ("[n > 1", DYN, "expected ']'"),
    ],
)
def test_the_result_has_to_be_of_the_wanted_type(source: str, want: Type, message: str) -> None:
    assert message in problems(source, want)[0].message


def test_a_computed_text_for_a_known_value_is_doubtful() -> None:
    (warning,) = compiled("'se' + 'vere'", SEVERITY).warnings
    assert "cannot be told" in warning.message


@pytest.mark.parametrize(
    ("source", "doubtful"),
    [
        ("fields.loss_cny > money('1')", ["fields.loss_cny"]),
        ("fields.loss_cny + fields.paid_cny > money('1')", ["fields.loss_cny", "fields.paid_cny"]),
        ("fields.loss_cny != null && fields.loss_cny > money('1')", []),
        ("fields.loss_cny > money('1') && fields.loss_cny != null", []),
        ("has(fields.loss_cny) && n > 1 && fields.loss_cny > money('1')", []),
        ("fields.loss_cny == null || fields.loss_cny > money('1')", []),
        ("!has(fields.loss_cny) || fields.loss_cny > money('1')", []),
        ("!(fields.loss_cny == null || fields.loss_cny <= money('1'))", []),
        ("has(fields.loss_cny) || fields.loss_cny > money('1')", ["fields.loss_cny"]),
        ("fields.loss_cny > money('1') && fields.loss_cny < money('9')", ["fields.loss_cny"]),
        ("has(fields.loss_cny) ? fields.loss_cny > money('1') : false", []),
        ("has(fields.loss_cny) ? false : fields.loss_cny > money('1')", ["fields.loss_cny"]),
        ("(has(fields.loss_cny) && n > 1) && (n < 3 || fields.loss_cny > money('1'))", []),
        ("has(data.tags) && data.tags.exists(tag, tag.startsWith('i'))", []),
        ("data.tags.exists(tag, tag.startsWith('i'))", ["data.tags"]),
        ("items.exists(item, item.price > money('1'))", ["item.price"]),
        ("items.exists(item, has(item.price) && item.price > money('1'))", []),
        ("complaint.received_at < now", []),
        ("complaint.handler.level > 1", ["complaint.handler.level"]),
        ("has(complaint.handler.level) && complaint.handler.unit.startsWith('w')", ["complaint.handler.unit"]),
        ("previous.outcome == 'upheld'", []),
        ("complaint.anonymous && n > 1", ["complaint.anonymous"]),
        ("complaint.anonymous == true && n > 1", []),
        ("data.count in [1, 2] && data.count > 1", []),
        ("data.step == 'callback' && data.step.startsWith('c')", []),
        ("default(fields.loss_cny, money('0')) > money('1')", []),
        ("seen['a'] > 1", []),
        ("labels['a'].startsWith('b')", ["labels.a"]),
        ("labels['step:a'].startsWith('b')", ['labels["step:a"]']),
        ("data.anything > 3", ["data.anything"]),
        ("max(data.count, 3) > 2", ["data.count"]),
        ("'a' in data.tags", ["data.tags"]),
    ],
)
def test_an_operand_that_may_have_no_value_is_doubtful_unless_guarded(source: str, doubtful: list[str]) -> None:
    warnings = compiled(source, BOOL).warnings
    assert [warning.message.split(" may have")[0] for warning in warnings] == doubtful
    assert all(warning.suggestion for warning in warnings)


def test_near_misses_are_close_ones() -> None:
    assert near_miss("sever", ["simple", "severe"]) == "severe"
    assert near_miss("SEVERE", ["simple", "severe"]) == "severe"
    assert near_miss("call", ["callback", "visit"]) == "callback"
    assert near_miss("loss", ["callback", "visit"]) is None
    assert near_miss("", ["a"]) is None


def test_enums_that_share_a_value_can_be_compared() -> None:
    mixed = EnumType(("severe", "callback"), "mixed")
    assert compiled("n > 1 ? complaint.severity : data.step").type == EnumType(
        ("simple", "average", "severe", "callback", "site_visit", "meeting"), "severity"
    )
    assert compiled("data.step", mixed).type.kind == "string"
