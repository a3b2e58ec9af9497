"""What can be written, how it groups, and what it gives."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from shared.policy.cel import BOOL, MONEY, EvaluationError
from tests.unit.policy.cel_scope import ENVIRONMENT, a_scope, compiled, result


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("--1", 1),
        ("0x1F", 31),
        ("-9223372036854775808", -(2**63)),
        ("true", True),
        ("null", None),
        ('"a"', "a"),
        ("'a'", "a"),
        ('"""a\n"b" c"""', 'a\n"b" c'),
        (r'"\t\"\\\x41\u4e2d\U0001F600\101"', '\t"\\A中😀A'),
        (r'r"\d"', r"\d"),
        ("'中文'", "中文"),
        ("[1, 2,]", [1, 2]),
        ("[]", []),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 2 - 3", 5),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("7 % -2", 1),
        ("2 * -n", -14),
        ("1 - -1", 2),
        ("n -1", 6),
        ("1 + 1 == 2", True),
        ("1 < 2 == true", True),
        ("true || false && false", True),
        ("(true || false) && false", False),
        ("!true || true", True),
        ("!(true || true)", False),
        ("false ? 1 : true ? 2 : 3", 2),
        ("true ? false ? 1 : 2 : 3", 2),
        ("n > 5 && n < 10 ? 'in' : 'out'", "in"),
        ("1 in [1, 2] && !(3 in [1, 2])", True),
        ('"zone" in labels', True),
        ('labels["zone"]', "north"),
        ("labels.zone", "north"),
        ('labels["zo" + "ne"]', "north"),
        ('labels["other"]', None),
        ("data.tags[1]", "delay"),
        ("data.anything.deep[1]", "two"),
        ('data["anything"]["deep"][0] == 1', True),
        ("[1, 2, 3].map(x, x * n)", [7, 14, 21]),
        ("[1, 2, 3].filter(x, x > 1)", [2, 3]),
        ("[1, 2, 3].all(x, x > 0)", True),
        ("[].all(x, x == 1)", True),
        ("[].exists(x, x == 1)", False),
        ("[1, 2, 3].exists_one(x, x > 2)", True),
        ("[1, 2, 3].exists_one(x, x > 1)", False),
        ("labels.exists(key, labels[key] == 'north')", True),
        ("items.filter(item, item.price > money('100')).map(item, item.name)", ["bed"]),
        ("items.exists(item, item.tags.exists(tag, tag == 'big'))", True),
        ("size(data.tags) + data.tags.size() + size('中文') + size(labels)", 7),
        ("'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('b')", True),
        ("'ward_5_box'.before('_box') + 'none'.before('_') + 'a'.before('')", "ward_5nonea"),
        ("size(names('a')) + size(names(['a', 'b'])) + size(names(null))", 3),
        ("int('12') + int(5) + int(timestamp('1970-01-01T00:01:00Z'))", 77),
        ("string(12) + string(true) + string('x') + string(money('1.5'))", "12truex1.50"),
        ("string(timestamp('2026-03-01T08:00:00+08:00'))", "2026-03-01T00:00:00Z"),
        ("string(duration('90m')) + ' ' + string(date('2026-03-01'))", "5400s 2026-03-01"),
        ("[1] + [2, 3]", [1, 2, 3]),
        ("max(1, 5, 3) + min([4, 2])", 7),
        ("sum([1, 2, 3]) + sum([1].filter(x, x > 1))", 6),
        ("default(labels.other, 'none') + default(labels.zone, 'none')", "nonenorth"),
        ("state_of('reply')", "running"),
        ("// the class\n n // and more\n == 7", True),
    ],
)
def test_an_expression_gives_its_value(source: str, value: Any) -> None:
    found = result(source)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("fields.loss_cny", 48000),
        ("fields.loss_cny + money('0.05')", 48005),
        ("money('1.00') - fields.paid_cny", -49900),
        ("fields.paid_cny * 3", 150000),
        ("2 * money('0.5')", 100),
        ("half(fields.loss_cny)", 24000),
        ("sum(fields.parts)", 375),
        ("sum(items.map(item, item.price))", 32000),
        ("max(fields.parts)", 225),
        ("max(fields.loss_cny, fields.paid_cny)", 50000),
        ("-money('1')", -100),
    ],
)
def test_money_is_reckoned_in_minor_units(source: str, value: int) -> None:
    assert result(source, want=MONEY) == value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("now - complaint.received_at", timedelta(days=2, hours=23)),
        ("complaint.received_at + duration('24h')", datetime(2026, 3, 3, 1, tzinfo=UTC)),
        ("duration('1h') + now", datetime(2026, 3, 5, 1, tzinfo=UTC)),
        ("now - duration('1d')", datetime(2026, 3, 4, tzinfo=UTC)),
        ("data.took * 2", timedelta(hours=3)),
        ("-duration('1h30m') + duration('0.5s')", timedelta(hours=-1, minutes=-30, milliseconds=500)),
        ("data.done_on + duration('1w')", date(2026, 3, 12)),
        ("data.done_on - duration('24h')", date(2026, 3, 4)),
        ("data.done_on - date('2026-03-01')", timedelta(days=4)),
        ("max(now, complaint.received_at)", datetime(2026, 3, 5, tzinfo=UTC)),
    ],
)
def test_times_are_added_and_subtracted(source: str, value: Any) -> None:
    assert result(source) == value


@pytest.mark.parametrize(
    "source",
    [
        "now > complaint.received_at",
        "now >= timestamp('2026-03-05T08:00:00+08:00') && now <= timestamp('2026-03-05T00:00:00Z')",
        "now == timestamp('2026-03-05T08:00:00+08:00')",
        "data.done_on < date('2026-03-06') && data.done_on == date('2026-03-05')",
        "data.took in [duration('1h30m')]",
        "money('480') == fields.loss_cny && money('480.00') in [fields.loss_cny]",
        "money('2.25') in fields.parts && fields.parts[0] == money('1.5')",
        "data.anything.deep[0] + 1 == 2 && data.anything.deep[0] < 2",
        "data.anything.deep.exists(item, item == 'two') && 'two' in data.anything.deep",
        "data.anything != 5 && data.anything.deep != 'x'",
        "seen['step:callback'] >= 2",
    ],
)
def test_values_are_compared_by_their_declared_type(source: str) -> None:
    assert result(source, want=BOOL) is True


def test_precedence_shows_in_the_tree_alone() -> None:
    one = compiled("1 + n * 3 > n && !(n in [1]) || n == 2")
    other = compiled("((1 + (n * 3)) > n && !(n in [1])) || (n == 2)")
    assert [one(a_scope(n=n)) for n in range(4)] == [other(a_scope(n=n)) for n in range(4)]


def test_the_paths_read_are_known() -> None:
    program = compiled(
        'complaint.severity == "severe" && has(fields.note) && data.tags.exists(t, t == labels[fields.note])'
        ' && data["count"] > 1 && seen["step:callback"] > 1 && items[0].name == "bed" && data.anything.deep[n] == 1'
    )
    assert program.paths == {
        "complaint.severity",
        "fields.note",
        "data.tags",
        "labels",
        "data.count",
        "seen.step:callback",
        "items",
        "data.anything.deep",
        "n",
    }


def test_a_program_that_reads_nothing_has_its_value_at_once() -> None:
    assert compiled("1 + 1").constant == 2
    assert compiled("money('5')", MONEY).constant == 500
    assert compiled("null").is_constant
    assert not compiled("n").is_constant
    assert not compiled("state_of('reply')").is_constant


def test_the_scope_is_asked_only_for_what_is_needed() -> None:
    class Lazy:
        n = 1

        @property
        def items(self) -> list[Any]:
            raise AssertionError("nobody needs this")

    assert compiled("n == 1 || size(items) > 3")(Lazy()) is True


def test_a_fault_of_the_scope_stays_a_fault() -> None:
    class Broken:
        @property
        def n(self) -> int:
            raise KeyError("bug")

    with pytest.raises(KeyError):
        compiled("n == 1")(Broken())


def test_names_that_are_no_identifiers_are_refused_by_the_environment() -> None:
    for name in ("if", "_x", "a-b", "a b", "数"):
        with pytest.raises(ValueError, match="cannot be a name"):
            type(ENVIRONMENT)({name: BOOL})


def test_the_evaluation_of_a_program_fails_with_the_reason() -> None:
    for source, reason in [
        ("n / 0", "division by zero"),
        ("data.tags[2]", "no place 2"),
        ("data.tags[-1]", "no place -1"),
        ("9223372036854775807 + n", "64 bits"),
        ("n * 9223372036854775807", "64 bits"),
        ("-(n - 7 - 9223372036854775807 - 1)", "64 bits"),
        ("half(money('0.01') * n)", "halved"),
        ("data.done_on + duration('1h')", "whole days"),
        ("now + duration('99999999h') * n", "range|large|overflow"),
        ("int(fields.note)", "whole number"),
        ("max(data.tags.map(t, 1).filter(i, i > 1))", "empty"),
        ("data.anything.deep < 3", "not a whole number"),
    ]:
        with pytest.raises(EvaluationError, match=reason):
            result(source)
