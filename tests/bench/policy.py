"""`make bench-policy`: the policy core, measured. JSON on stdout, a table on stderr.

Every figure is a median over interleaved runs of processor time on one core (the back-test: wall time on all cores). Absolute targets are
scaled by a calibration measured in the same run: a fixed loop of plain Python, against what it does on the machine the targets were set on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from services.routing.backtesting import Job, Share, fold_share
from shared.engine.amounts import parse_amount
from shared.engine.calendar import Calendar, CalendarBook, CalendarSection
from shared.engine.case import fold
from shared.engine.model import Actor, Entry
from shared.policy.backtesting import Backtest, History
from shared.policy.compiling import compile_policy
from shared.policy.linting import lint
from shared.policy.template_files import names, text_of
from tests.bench.calibration import REFERENCE_LOOPS, per_second, turns

NINE: Final = datetime(2026, 3, 2, 1, tzinfo=UTC)
RUNS: Final = int(os.environ.get("RUNS", "7"))
HISTORY: Final = int(os.environ.get("HISTORY", "100000"))
ENOUGH: Final = 20_000
"""The shortest history whose back-test is held against the target; of a shorter one, most is starting processes and compiling."""

DOCUMENT: Final[dict[str, Any]] = {
    "policy": 1,
    "title": "A regime of the usual size",
    "vocabulary": {
        "kinds": {"external": "", "internal": ""},
        "categories": {"attitude": "", "quality": "", "delay": ""},
        "severities": {"light": "", "medium": "", "severe": ""},
        "fields": {"loss_cny": {"type": "money"}, "complex": {"type": "bool"}},
        "steps": {"verified": "", "callback": ""},
        "states": dict.fromkeys(("received", "accepted", "assigned", "resolved", "closed"), ""),
        "sanctions": {"apology": "", "warning": ""},
    },
    "organisation": {"units": {"office": "", "ward": ""}, "roles": {"head": "", "director": ""}},
    "classification": [
        {"set": {"severity": "severe"}, "when": 'fields.loss_cny != null && fields.loss_cny > money("500.00")'},
        {"set": {"severity": "medium"}, "when": 'complaint.category == "attitude"'},
        {"set": {"severity": "light"}},
    ],
    "routing": [
        {"unit": "office"},
        {"on": ["received", "class:category"], "role": "head", "when": 'complaint.category == "attitude"'},
        {"on": "assigned", "unit": "=data.unit"},
    ],
    "workflow": {
        "gates": [
            {"on": "resolved", "when": '!("investigated" in seen)', "reason": "not_investigated"},
            {"on": "closed", "by": ["head"], "reason": "beyond_authority"},
        ]
    },
    "clocks": [
        {"id": "accept", "start": "received", "stop": ["accepted", "declined"], "within": "3wd"},
        {"id": "verify", "start": "received", "stop": "step:verified", "within": "24h"},
        {
            "id": "answer_light",
            "start": "accepted",
            "stop": "replied",
            "within": "5wd",
            "while": 'complaint.severity == "light"',
        },
        {
            "id": "answer",
            "start": "accepted",
            "stop": "replied",
            "within": "3wd",
            "while": 'complaint.severity != "light"',
            "pauses": [{"from": "materials_requested", "to": "supplemented"}],
            "steps": [
                {"before": "1wd", "do": [{"kind": "warned", "to": "office"}]},
                {"after": "0h", "do": [{"kind": "escalated", "to": "director"}]},
            ],
        },
        {"id": "respond", "start": "assigned", "stop": "responded", "within": "48h"},
        {"id": "follow_up", "start": "resolved", "stop": "followed_up", "within": "5wd"},
        {"id": "overall", "start": "received", "stop": "closed", "within": "15wd"},
    ],
    "penalties": {
        "rules": [
            {
                "id": "fine",
                "on": {"on": "resolved", "when": 'data.outcome == "upheld"'},
                "party": ["=complaint.respondent.staff", "head"],
                "impose": [{"kind": "fine", "amount": "100.00"}, {"kind": "sanction", "sanction": "apology"}],
            },
            {
                "id": "joint",
                "on": "penalty:fine",
                "party": ["=complaint.respondent.supervisor", "head"],
                "impose": [{"kind": "fine", "percent": "20", "of": "=penalty.amount"}],
            },
            {
                "id": "late",
                "on": "breach:answer",
                "party": ["=complaint.handler.staff", "office"],
                "impose": [{"kind": "fine", "accrual": {"first": "50.00", "per_day": "50.00"}}],
            },
        ]
    },
}


def timeline(shift: timedelta = timedelta()) -> list[Entry]:
    """A closed complaint of 12 entries; the answer came two working days late."""
    lines: list[tuple[float, str, str, dict[str, Any]]] = [
        (
            0,
            "received",
            "intake",
            {
                "channel": "phone",
                "kind": "external",
                "category": "attitude",
                "respondent": {"staff": "s1", "unit": "ward", "supervisor": "s9"},
                "handler": {"staff": "h1", "unit": "office"},
                "fields": {"loss_cny": "120.00"},
            },
        ),
        (2, "accepted", "office", {}),
        (3, "assigned", "office", {"unit": "ward", "staff": "h1"}),
        (5, "step", "office", {"step": "verified"}),
        (25, "responded", "h1", {}),
        (30, "materials_requested", "office", {"documents": ["proof"]}),
        (49, "supplemented", "complainant", {"documents": ["proof"]}),
        (73, "investigated", "office", {"documents": ["report"]}),
        (170, "replied", "office", {"mode": "phone"}),
        (171, "resolved", "office", {"outcome": "upheld"}),
        (220, "followed_up", "office", {"rating": "satisfied"}),
        (222, "closed", "head", {}),
    ]
    return [
        Entry(
            seq=seq,
            kind=kind,
            at=NINE + shift + timedelta(hours=hours),
            by=Actor(id=by, roles=(by,)),
            data=data,
        )
        for seq, (hours, kind, by, data) in enumerate(lines, 1)
    ]


def measure() -> dict[str, Any]:
    policy = compile_policy(DOCUMENT)
    book = CalendarBook.of(CalendarSection())
    entries, until = timeline(), NINE + timedelta(days=40)
    standing = fold({1: policy}, entries, book, until)
    shape = {
        "entries": len(entries),
        "clocks": len({(one.rule, one.run) for one in standing.clocks}),
        "penalties": len(standing.penalties),
    }
    if (shape["entries"], shape["clocks"], shape["penalties"]) != (12, 6, 4):
        raise SystemExit(f"the case to fold has changed its shape: {shape}")
    calendar: Calendar = book.at(None, NINE, NINE)
    counting = book.counting
    days, hours = parse_amount("10wd"), parse_amount("20bh")
    starts = [NINE + timedelta(hours=7 * place) for place in range(3 * 365 * 24 // 7)]

    def folds() -> int:
        for _ in range(400):
            fold({1: policy}, entries, book, until)
        return 400

    def working_days() -> int:
        for start in starts:
            calendar.due(start, days, counting)
        return len(starts)

    def working_hours() -> int:
        for start in starts:
            calendar.due(start, hours, counting)
        return len(starts)

    largest = max((text_of(regime) for regime in names()), key=len)
    rounds: dict[str, list[float]] = {}
    tasks: dict[str, Callable[[], int]] = {
        "calibration": turns,
        "fold": folds,
        "working_days": working_days,
        "working_hours": working_hours,
        "lint": lambda: len([lint(largest)]),
    }
    for task in tasks.values():
        task()
    for _ in range(RUNS):
        for name, task in tasks.items():
            rounds.setdefault(name, []).append(per_second(task))
    medians = {name: statistics.median(found) for name, found in rounds.items()}
    scale = medians["calibration"] / REFERENCE_LOOPS
    seconds = back_test_seconds(until)
    figures = {
        "folds_per_second": medians["fold"],
        "working_days_per_second": medians["working_days"],
        "working_hours_per_second": medians["working_hours"],
        "compile_and_lint_largest_ms": 1000 / medians["lint"],
        "largest_template_bytes": len(largest.encode()),
        "backtest_complaints": HISTORY,
        "backtest_seconds": seconds,
        "backtest_cores": os.cpu_count(),
    }
    targets = [
        target("folds_per_second", medians["fold"], 5_000 * scale, more=True),
        target("working_days_per_second", medians["working_days"], 300_000 * scale, more=True),
        target("working_hours_per_second", medians["working_hours"], 300_000 * scale, more=True),
        target("compile_and_lint_largest_ms", figures["compile_and_lint_largest_ms"] or 0, 150 / scale, more=False),
    ]
    if HISTORY >= ENOUGH:
        targets.append(target("backtest_seconds", seconds, 60 / scale * HISTORY / 100_000, more=False))
    return {
        "calibration": {"loops_per_second": medians["calibration"], "reference": REFERENCE_LOOPS, "scale": scale},
        "figures": figures,
        "targets": targets,
    }


def target(name: str, value: float, wanted: float, *, more: bool) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 3),
        "target": round(wanted, 3),
        "met": value >= wanted if more else value <= wanted,
    }


def back_test_seconds(until: datetime) -> float:
    """Wall time of a back-test of the whole history on all cores, everything included: starting processes, decoding, folding twice."""
    draft = json.loads(json.dumps(DOCUMENT))
    draft["clocks"][3]["within"] = "4wd"
    job = msgspec.json.encode(
        Job(
            draft=draft,
            settings={},
            live={1: (DOCUMENT, {})},
            zone="Asia/Shanghai",
            policies=[],
            published=[],
            until=until + timedelta(days=400),
        )
    )
    shares = []
    step = 1000
    for first in range(0, HISTORY, step):
        cases = [
            History(f"c{number}", str(number), 1, timeline(timedelta(minutes=number % 400_000)))
            for number in range(first, min(first + step, HISTORY))
        ]
        shares.append(msgspec.json.encode(Share(cases=cases)))
    started = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(fold_share, [job] * len(shares), shares))
    seconds = time.perf_counter() - started
    results = [msgspec.json.decode(one, type=Backtest) for one in done]
    if sum(one.cases for one in results) != HISTORY or sum(one.changed for one in results) == 0:
        raise SystemExit("the back-test did not see its history")
    return seconds


def main() -> None:
    found = measure()
    json.dump(found, sys.stdout, indent=2)
    sys.stdout.write("\n")
    for one in found["targets"]:
        mark = "met   " if one["met"] else "MISSED"
        sys.stderr.write(f"{mark} {one['name']:32} {one['value']:>14,.1f}   target {one['target']:,.1f}\n")
    if HISTORY < ENOUGH:
        seconds = found["figures"]["backtest_seconds"]
        told = f"{seconds:,.1f}   for {HISTORY:,} complaints: not judged below {ENOUGH:,}"
        sys.stderr.write(f"-      {'backtest_seconds':32} {told}\n")
    missed = [one["name"] for one in found["targets"] if not one["met"]]
    total = len(found["targets"])
    sys.stderr.write(
        f"targets met: {total - len(missed)} of {total}" + (f"; missed: {', '.join(missed)}\n" if missed else "\n")
    )
    if missed and os.environ.get("CHECK") == "1":
        sys.exit(1)


if __name__ == "__main__":
    main()
