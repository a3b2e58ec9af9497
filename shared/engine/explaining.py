"""Why a figure is what it is: the computation itself, step by step, in English and Chinese. Computed, never narrated."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from shared.engine.calendar import Calendar, explain, render
from shared.engine.calendar.steps import Step as DayStep
from shared.engine.case import Case
from shared.engine.model import ClockView, PenaltyView
from shared.engine.rules import Clause
from shared.engine.runs import Run

Language = Literal["en", "zh"]


class Explanation(Struct, frozen=True, kw_only=True):
    """One figure explained: what it is, under which version, rule and clause, and the lines that lead to it."""

    subject: Literal["clock", "penalty"]
    rule: str
    clause: Clause
    title: str
    result: str
    policy_version: int
    lines: tuple[str, ...]
    inputs: dict[str, Any]


STATES = {
    "en": {
        "running": "is running",
        "paused": "rests",
        "met": "was met",
        "breached": "was missed",
        "superseded": "was replaced by another date",
        "cancelled": "was cancelled",
        "fired": "has acted",
    },
    "zh": {
        "running": "计时中",
        "paused": "已暂停",
        "met": "按时完成",
        "breached": "已逾期",
        "superseded": "已被新期限取代",
        "cancelled": "已取消",
        "fired": "已自动执行",
    },
}


def explain_clocks(case: Case, lang: Language = "en") -> list[Explanation]:
    """Every run of every clock of a case, in the order in which they started."""
    started = sorted(
        (run for runs in case.runs.values() for run in runs if run.due_at is not None), key=lambda run: run.started_at
    )
    return [explain_run(case, run, lang) for run in started]


def explain_run(case: Case, run: Run, lang: Language = "en") -> Explanation:
    """The due instant of one run: the intervals counted and skipped, each with its cause, which re-add to it."""
    assert run.due_at is not None
    assert run.calendar is not None
    view = run.view(case.at or run.due_at)
    return Explanation(
        subject="clock",
        rule=run.rule.id,
        clause=run.rule.clause,
        title=clock_title(case, run.rule.id, lang),
        result=view.due_at.isoformat() if view.due_at is not None else "",
        policy_version=run.policy_version,
        lines=(
            *_opening(run, view, run.calendar, lang),
            *_counted(run, run.calendar, lang),
            _closing(view, run.calendar, lang),
        ),
        inputs={
            "started_at": view.started_at,
            "anchor_at": view.anchor_at,
            "amount": view.amount,
            "calendar": view.calendar,
            "state": view.state,
            "stopped_at": view.stopped_at,
            "provisional": view.provisional,
            "pauses": run.pauses,
        },
    )


def steps_of(run: Run) -> list[DayStep]:
    """The steps from the run's anchor to its due instant; none for an instant that was agreed or moved by hand."""
    if run.amount is None or run.due_at is None:
        return []
    if run.calendar.due(run.anchor_at, run.amount, run.counting, run.paused) != run.due_at:
        return []
    return explain(run.calendar, run.anchor_at, run.amount, run.counting, run.pauses)


def _local(calendar: Calendar, at: Any) -> str:
    return f"{calendar.local(at):%Y-%m-%d %H:%M:%S}"


def _opening(run: Run, view: ClockView, calendar: Calendar, lang: Language) -> tuple[str, ...]:
    start = _local(calendar, view.started_at)
    amount = view.amount
    if lang == "zh":
        told = f"自 {start} 起算" if amount is None else f"自 {start} 起算，期限 {amount}"
    else:
        told = f"Started {start}" if amount is None else f"Started {start}, within {amount}"
    if view.anchor_at != view.started_at:
        told += (
            f"，从 {_local(calendar, view.anchor_at)} 计"
            if lang == "zh"
            else f", counted from {_local(calendar, view.anchor_at)}"
        )
    return (told,)


def _counted(run: Run, calendar: Calendar, lang: Language) -> tuple[str, ...]:
    steps = steps_of(run)
    if steps:
        return tuple(render(calendar, steps, lang))
    assert run.due_at is not None
    due = _local(calendar, run.due_at)
    return (f"约定时间 {due}" if lang == "zh" else f"Agreed or set: {due}",)


def _closing(view: ClockView, calendar: Calendar, lang: Language) -> str:
    assert view.due_at is not None
    due, state = _local(calendar, view.due_at), STATES[lang][view.state]
    late = view.data.get("overdue_days")
    if lang == "zh":
        told = f"截止 {due}，{state}"
        if view.stopped_at is not None:
            told += f"，完成于 {_local(calendar, view.stopped_at)}"
        return told + (f"，逾期 {late} 天" if late else "") + ("（节假日尚未公布，暂定）" if view.provisional else "")
    told = f"Due {due}, {state}"
    if view.stopped_at is not None:
        told += f", done {_local(calendar, view.stopped_at)}"
    told += f", {late} {'day' if late == 1 else 'days'} late" if late else ""
    return told + (" (provisional: days are not announced yet)" if view.provisional else "")


def clock_title(case: Case, rule: str, lang: Language) -> str:
    """What the policy calls the clock."""
    for one in (*case.policy.document.clocks, *case.policy.document.duties):
        if one.id == rule:
            return text_in(one.title, lang) or rule.replace("_", " ")
    return rule.replace("_", " ")


def penalty_title(case: Case, rule: str, lang: Language) -> str:
    for one in case.policy.document.penalties.rules:
        if one.id == rule:
            return text_in(one.title, lang) or rule.replace("_", " ")
    return rule.replace("_", " ")


def text_in(text: Any, lang: str) -> str:
    """A text of the policy in the language, else in English, else in any."""
    if isinstance(text, str):
        return text
    return str(text.get(lang) or text.get("en") or next(iter(text.values()), "")) if text else ""


PENALTY_STEPS: dict[str, dict[str, str]] = {
    "en": {
        "fixed": "Fixed amount: {value}",
        "base": "Taken of: {value}",
        "percent": "{percent} % of it: {value}",
        "range": "A person decides between {value}",
        "decided": "Decided by {by}: {value}",
        "multiplied": "Times {by}: {value}",
        "factor": "Pay factor {factor}, lost: {value}",
        "slice": "{percent} % of the slice of {of}: {value}",
        "sum": "Sum: {value}",
        "overdue_days": "Overdue days: {value}",
        "first": "For the breach: {value}",
        "further_days": "{days} further days at {per_day}: {value}",
        "capped": "Capped at {value}",
        "instalment": "Instalment {value}",
        "decided_on_appeal": "Decided on appeal: {value}",
        "before": "Before: {value}",
        "difference": "Difference: {value}",
    },
    "zh": {
        "fixed": "固定金额：{value}",
        "base": "计算基数：{value}",
        "percent": "按 {percent}% 计：{value}",
        "range": "由人裁定，范围 {value}",
        "decided": "由 {by} 裁定：{value}",
        "multiplied": "乘以 {by}：{value}",
        "factor": "绩效系数 {factor}，扣减：{value}",
        "slice": "{of} 部分按 {percent}%：{value}",
        "sum": "合计：{value}",
        "overdue_days": "逾期天数：{value}",
        "first": "逾期首笔：{value}",
        "further_days": "另加 {days} 天，每天 {per_day}：{value}",
        "capped": "以 {value} 为限",
        "instalment": "分期 {value}",
        "decided_on_appeal": "申诉裁定：{value}",
        "before": "原金额：{value}",
        "difference": "差额：{value}",
    },
}


def explain_penalty(case: Case, view: PenaltyView, lang: Language = "en") -> Explanation:
    """An imposed thing: its inputs, the rule, and the arithmetic line by line."""
    from shared.money import format_minor

    words = PENALTY_STEPS[lang]
    lines = []
    for step in view.steps:
        form = words.get(step.label, "{value}")
        detail = {name: value if value is not None else "" for name, value in step.detail.items()}
        try:
            lines.append(form.format(value=step.value, **detail))
        except (KeyError, IndexError):
            lines.append(f"{step.label}: {step.value}")
    if view.amount_minor is not None:
        result = f"{format_minor(view.amount_minor, view.currency)} {view.currency}"
    elif view.sanction is not None:
        result = view.sanction
    elif view.points is not None:
        result = str(view.points)
    else:
        result = "to be decided" if lang == "en" else "待裁定"
    if not lines:
        lines.append(result)
    return Explanation(
        subject="penalty",
        rule=view.rule,
        clause=view.clause,
        title=penalty_title(case, view.rule, lang),
        result=result,
        policy_version=view.policy_version,
        lines=tuple(lines),
        inputs={
            "party": view.party,
            "kind": view.kind,
            "at": view.at,
            "state": view.state,
            **({"because": view.because} if view.because else {}),
            **({"multiplier_clause": view.multiplier_clause} if view.multiplier_clause else {}),
            **view.data,
        },
    )
