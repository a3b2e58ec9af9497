"""Conditions in plain words."""

import pytest

from shared.policy.cel import BOOL, DYN, INT, MONEY, Environment, Function, Language, compile_expression, describe
from tests.unit.policy.cel_scope import ENVIRONMENT

LABELS: dict[Language, dict[str, str]] = {
    "en": {"fields.loss_cny": "the loss", "complaint.severity=severe": "serious", "data.tags": "the tags"},
    "zh": {
        "complaint.severity": "等级",
        "complaint.severity=simple": "简单",
        "complaint.severity=severe": "严重",
        "fields.loss_cny": "损失",
        "fields.paid_cny": "已付金额",
        "data.step": "步骤",
        "data.step=callback": "回访",
        "data.tags": "标签",
        "data.count": "次数",
        "complaint.received_at": "收到时间",
        "complaint.anonymous": "匿名",
        "complaint.channel": "渠道",
        "now": "现在",
        "n": "人数",
        "items": "物品",
    },
}


def described(source: str, lang: Language, environment: Environment = ENVIRONMENT) -> str:
    program = compile_expression(source, environment, DYN)
    return describe(program, lang, LABELS[lang].get)


@pytest.mark.parametrize(
    ("source", "en", "zh"),
    [
        (
            'complaint.severity == "simple" && fields.loss_cny > money("500")',
            "severity is simple and the loss is more than CNY 500.00",
            "等级为简单，并且损失大于500.00元",
        ),
        (
            'complaint.severity in ["simple", "average", "severe"]',
            "severity is one of simple, average or serious",
            "等级为简单、average或严重之一",
        ),
        ('complaint.severity in ["severe"]', "severity is serious", "等级为严重"),
        (
            '!(complaint.severity in ["simple", "severe"])',
            "severity is none of simple or serious",
            "等级不是简单或严重中的任何一个",
        ),
        ('data.step != "callback"', "step is not callback", "步骤不为回访"),
        ('"callback" == data.step', "step is callback", "步骤为回访"),
        ('!(data.step == "callback")', "step is not callback", "步骤不为回访"),
        ('complaint.channel == "phone"', "channel is “phone”", "渠道为“phone”"),
        ("fields.loss_cny == null", "the loss is not given", "未填写损失"),
        ("has(fields.loss_cny)", "the loss is given", "已填写损失"),
        ("!has(fields.loss_cny)", "the loss is not given", "未填写损失"),
        ("complaint.anonymous", "anonymous is true", "匿名为是"),
        ("!complaint.anonymous", "anonymous is not true", "匿名不为是"),
        ("complaint.anonymous == false", "anonymous is not true", "匿名不为是"),
        ("complaint.anonymous != false", "anonymous is true", "匿名为是"),
        (
            "(n > 1 || n < -2) && data.count <= 3 && data.count >= 1",
            "(n is more than 1 or n is less than -2) and count is at most 3 and count is at least 1",
            "（人数大于1，或者人数小于-2），并且次数不超过3，并且次数不少于1",
        ),
        (
            "n == 1 && n == 2 || n == 3",
            "(n is 1 and n is 2) or n is 3",
            "（人数为1，并且人数为2），或者人数为3",
        ),
        (
            "!(n > 1 && n < 3)",
            "it is not so that (n is more than 1 and n is less than 3)",
            "并非（人数大于1，并且人数小于3）",
        ),
        (
            'now - complaint.received_at > duration("36h")',
            "now minus received at is more than 36 hours",
            "现在减收到时间大于36小时",
        ),
        (
            'complaint.received_at >= timestamp("2026-03-01T08:00:00+08:00")',
            "received at is not before 2026-03-01 00:00 UTC",
            "收到时间不早于2026-03-01 00:00 UTC",
        ),
        ("now < complaint.received_at", "now is before received at", "现在早于收到时间"),
        ('"injury" in data.tags', "“injury” is among the tags", "标签中有“injury”"),
        ("size(data.tags) == 0", "the number of the tags is 0", "标签的数量为0"),
        (
            'data.tags.exists(tag, tag.startsWith("in"))',
            "for at least one tag of the tags, tag starts with “in”",
            "标签中至少有一个tag满足：tag以“in”开头",
        ),
        (
            "items.all(item, has(item.price)) || n == 1",
            "(for every item of items, price is given) or n is 1",
            "（物品中的每个item都满足：已填写price），或者人数为1",
        ),
        (
            "(fields.loss_cny + fields.paid_cny) * 3",
            "(the loss plus paid cny) times 3",
            "（损失加已付金额）乘以3",
        ),
        (
            "n > 1 ? fields.loss_cny : money('0.5')",
            "the loss if n is more than 1, otherwise CNY 0.50",
            "若人数大于1则为损失，否则为0.50元",
        ),
        ("max(fields.loss_cny, money('5'))", "the greatest of the loss, CNY 5.00", "损失、5.00元中的最大值"),
        ("default(data.count, 0)", "count (or 0, if not given)", "次数（未填写时为0）"),
        ("data.took == duration('1h30m')", "took is 90 minutes", "took为90分钟"),
        ("data.took == duration('72h')", "took is 3 days", "took为3天"),
        ("data.took == duration('1h')", "took is 1 hour", "took为1小时"),
        ("data.took == duration('1.5s')", "took is 1.5 seconds", "took为1.5秒"),
        ("data.done_on == date('2026-03-01')", "done on is 2026-03-01", "done on为2026年3月1日"),
        ('fields.note.contains("{0}")', "note contains “{0}”", "note包含“{0}”"),
        ("state_of('reply') == 'met'", "state_of(“reply”) is “met”", "state_of(“reply”)为“met”"),
        (
            "items.filter(item, item.name == 'bed')",
            "each item of items for which name is “bed”",
            "物品中满足“name为“bed””的各个item",
        ),
        ("n % 2 == 1", "the remainder of n divided by 2 is 1", "人数除以2的余数为1"),
        ("true", "true", "是"),
    ],
)
def test_a_condition_reads_as_a_phrase(source: str, en: str, zh: str) -> None:
    assert described(source, "en") == en
    assert described(source, "zh") == zh


def test_functions_bring_their_own_words() -> None:
    phrases = {"en": "{0} working days have passed", "zh": "已过{0}个工作日"}
    days = Function(arguments=(INT,), result=BOOL, call=lambda days: days > 0, phrases=phrases, takes_scope=True)
    environment = Environment({"fee": MONEY}, {"passed": days}, currency="JPY")
    assert described("passed(5)", "en", environment) == "5 working days have passed"
    assert described("!passed(5)", "zh", environment) == "并非（已过5个工作日）"
    assert described("fee > money('500')", "en", environment) == "fee is more than JPY 500"
    assert described("fee > money('500')", "zh", environment) == "fee大于500 JPY"
