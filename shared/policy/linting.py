"""What can never work in a policy, or was probably not meant: each with its place, the reason and a way out.

`compile_policy` finds what is wrong in itself (names, types, shapes). The checks here look at how rules work together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec import Struct

from shared.engine.amounts import MOST, Amount, parse_amount
from shared.engine.calendar import CalendarBook
from shared.engine.calendar import problems as calendar_problems
from shared.engine.holidays import countries
from shared.engine.model import ENTRY_KINDS
from shared.engine.penalties import MOST_INSTALMENTS
from shared.engine.rules import ClockRule, CompiledPolicy
from shared.policy import catalogue, schema
from shared.policy.cel import BOOL, ExpressionError, compile_expression, near_miss
from shared.policy.cel.environment import Environment
from shared.policy.compiling import NULLABLE, Compiler, compiled_states
from shared.policy.documents import Document, escape
from shared.policy.naming import COMMON_NAMES, undeclared
from shared.policy.problems import PolicyError, PolicyProblem
from shared.policy.quiet_hours import parse_quiet_hours
from shared.policy.scope import variables
from shared.policy.wording import problems as wording_problems
from shared.policy.wording import shown_fields

ANCHORS = ("start", "received")
MOST_TURNS = 400
SOME_DAY = datetime(2026, 1, 5, 2, tzinfo=UTC)


class Findings(Struct, frozen=True):
    """Everything found in a document; it can be published when there is no error."""

    problems: list[PolicyProblem]

    @property
    def errors(self) -> list[PolicyProblem]:
        return [one for one in self.problems if one.severity == "error"]

    @property
    def warnings(self) -> list[PolicyProblem]:
        return [one for one in self.problems if one.severity == "warning"]


def lint(source: Document | Mapping[str, Any] | str | bytes, settings: Mapping[str, Any] | None = None) -> Findings:
    """Return everything that is wrong or doubtful, in the order of the document."""
    try:
        compiler = Compiler(source, settings or {}, 1, None)
        policy = compiler.run()
    except PolicyError as error:
        return Findings(error.problems)
    linter = Linter(compiler, policy)
    linter.run()
    found = [*policy.warnings, *(compiler.placed(one) for one in linter.problems)]
    return Findings(sorted(found, key=lambda one: (one.severity != "error", one.line or 0, one.path)))


class Linter:
    """One look at one compiled policy."""

    def __init__(self, compiler: Compiler, policy: CompiledPolicy) -> None:
        self.compiler = compiler
        self.policy = policy
        self.document: schema.Policy = policy.document
        self.problems: list[PolicyProblem] = []

    def run(self) -> None:
        self._calendars()
        if self.problems:  # on such a calendar nothing can be counted
            return
        self.book = CalendarBook.of(self.compiler.section)
        self._clocks()
        self._duties()
        self._counters()
        self.problems += undeclared(self.document, self.compiler.names, self.compiler.states)
        self._reach()
        self._cycles()
        self._states()
        self._classes()
        self._gates()
        self._penalties()
        self._intake()
        self._messages()
        self._settings()
        self._clauses()
        self._constants()

    def error(self, path: str, message: str, code: str, suggestion: str | None = None) -> None:
        self.problems.append(PolicyProblem(path=path, message=message, code=code, suggestion=suggestion))

    def warn(self, path: str, message: str, code: str, suggestion: str | None = None) -> None:
        self.problems.append(
            PolicyProblem(path=path, message=message, code=code, suggestion=suggestion, severity="warning")
        )

    # -- calendars -------------------------------------------------------------------------------------------------------

    def _calendars(self) -> None:
        for found in calendar_problems(self.document.calendar, frozenset(countries())):
            pointer = "/calendar" + "".join(f"/{escape(str(step))}" for step in found.path)
            self.error(pointer, found.message, "calendar", found.suggestion or None)

    # -- clocks ----------------------------------------------------------------------------------------------------------

    def _clocks(self) -> None:
        for place, clock in enumerate(self.document.clocks):
            path = f"/clocks/{place}"
            rule = self.policy.clocks[clock.id]
            starts, stops = set(_keys(clock.start)), set(_keys(clock.stop))
            if not starts:
                self.error(f"{path}/start", f"nothing starts the clock {clock.id}", "never-starts")
            if clock.kind == "limit" and not stops and rule.cases:
                self.error(f"{path}/stop", f"nothing stops the clock {clock.id}, so it is always broken", "never-met")
            if clock.kind == "timer" and not rule.cases and clock.id not in self._left_open():
                self.error(f"{path}/within", f"the timer {clock.id} has no instant at which it acts", "never-fires")
            if starts & stops and _unconditional(clock.start) & _unconditional(clock.stop) and clock.again != "restart":
                both = ", ".join(sorted(_unconditional(clock.start) & _unconditional(clock.stop)))
                self.warn(path, f"{both} both starts and stops the clock {clock.id}", "starts-and-stops")
            if clock.id == clock.inside or (isinstance(clock.inside, list) and clock.id in clock.inside):
                self.error(f"{path}/inside", "a clock cannot lie inside itself", "inside-itself")
            for number, pause in enumerate(clock.pauses):
                where = f"{path}/pauses/{number}"
                into, out = set(_keys(pause.from_)), set(_keys(pause.to))
                if into & starts:
                    named = ", ".join(sorted(into & starts))
                    self.error(where, f"the pause begins with the clock's own start ({named})", "pause-at-start")
                if into == out and _unconditional(pause.from_) == _unconditional(pause.to):
                    self.error(where, "what begins the pause also ends it", "pause-without-length")
            self._rungs(clock, rule, path)
            self._series(clock, rule, path)
            self._ends(rule, path)
            if isinstance(clock.anchor, str) and not clock.anchor.startswith("=") and clock.anchor not in ANCHORS:
                told = f"a limit counts from its start, from received or from a value, not from {clock.anchor}"
                self.error(f"{path}/anchor", told, "unknown-name", near_miss(clock.anchor, ANCHORS))

    def _series(self, clock: schema.Clock, rule: ClockRule, path: str) -> None:
        """A series has an end in sight: all of it is looked at each time a complaint is."""
        repeat, every = clock.repeat, rule.repeat_every
        if repeat is None or every is None:
            return
        if every.n < 1:
            self.error(f"{path}/repeat/every", "a series in which nothing lies apart never ends", "endless")
        elif repeat.count is not None:
            if repeat.count < 1:
                self.error(f"{path}/repeat/count", "a series has at least one turn", "shape")
            elif repeat.count * every.n > MOST[every.unit] or repeat.count > MOST_TURNS:
                told = (
                    f"{repeat.count} times {repeat.every} is too long a series: at most {MOST_TURNS} turns in ten years"
                )
                self.error(f"{path}/repeat/count", told, "endless")

    def _ends(self, rule: ClockRule, path: str) -> None:
        """Each fixed limit comes to its end on the calendar it counts on."""
        for _, limit in rule.cases:
            if isinstance(limit, Amount):
                try:
                    self.book.at(rule.calendar, SOME_DAY, SOME_DAY).due(SOME_DAY, limit, rule.counting)
                except ValueError as error:
                    self.error(f"{path}/within", f"the limit never ends: {error}", "never-ends")

    def _counters(self) -> None:
        for place, subject in enumerate(self.document.subjects):
            threshold = subject.threshold
            if threshold is not None:
                for key, least in (("more_than", 0), ("at_least", 1)):
                    value = getattr(threshold, key)
                    if value is not None and value < least:
                        told = f"every count is {key.replace('_', ' ')} {value}; a threshold begins with {least}"
                        self.error(f"/subjects/{place}/threshold/{key}", told, "threshold")

    def _duties(self) -> None:
        for place, duty in enumerate(self.document.duties):
            for number, window in enumerate(duty.windows):
                for key, text in (("window", window.window), ("covers", window.covers)):
                    if text and not all(_is_day(one) for one in text.split("/")):
                        told = f"{text} names a day that not every year has"
                        self.error(f"/duties/{place}/windows/{number}/{key}", told, "shape")

    def _left_open(self) -> set[str]:
        """Clocks whose limit is a setting that the tenant has not chosen: measured until it does."""
        raw = self.compiler.raw.get("clocks") or []
        return {str(one.get("id")) for one in raw if isinstance(one, Mapping) and "within" in one}

    def _rungs(self, clock: schema.Clock, rule: ClockRule, path: str) -> None:
        limit = rule.cases[0][1] if len(rule.cases) == 1 else None
        for number, step in enumerate(clock.steps):
            where = f"{path}/steps/{number}"
            if not rule.cases and clock.repeat is None:
                self.error(
                    where, f"the clock {clock.id} has no limit, so nothing lies before or after it", "unreachable"
                )
            if not step.do:
                self.warn(where, "the step does nothing", "does-nothing")
            if step.before is not None and limit is not None and hasattr(limit, "unit"):
                early = parse_amount(step.before)
                if early.unit == limit.unit and early.n >= limit.n > 0:
                    self.error(
                        f"{where}/before",
                        f"{step.before} before the end lies before the start of a limit of {clock.within}",
                        "unreachable",
                    )

    # -- what can happen -------------------------------------------------------------------------------------------------

    def _reach(self) -> None:
        """Triggers that nothing ever sets off."""
        measured = {name for name, rule in self.policy.clocks.items() if not rule.cases and rule.repeat_every is None}
        timers = {name for name, rule in self.policy.clocks.items() if rule.timer}
        silent = {rule.id for rule in self.policy.subjects.values() if not rule.triggers}
        entered = {rule.state for rule in self.document.workflow.states}
        entered |= {action.state for action in self.document.actions if action.state} | set(compiled_states())
        entered.add(self.document.workflow.initial)
        for path, key in self._triggers():
            head, _, name = key.partition(":")
            if head == "breach" and name in timers:
                self.error(path, f"the timer {name} acts and is never broken", "unreachable", f"fired:{name}")
            elif head == "fired" and name in self.policy.clocks and name not in timers:
                self.error(path, f"the limit {name} is met or broken and never acts", "unreachable", f"breach:{name}")
            elif head in ("breach", "fired", "late") and name in measured:
                self.warn(path, f"the clock {name} has no limit, so {key} never happens", "unreachable")
            elif head == "count" and name in silent:
                self.error(path, f"nothing counts for {name}", "unreachable")
            elif head == "state" and name not in entered:
                self.error(path, f"nothing enters the state {name}", "unreachable")

        for place, accepts in enumerate(self.document.intake.acceptance_rules):
            for key in [] if accepts.on is None else _keys(accepts.on):
                if key.partition(":")[0] not in ENTRY_KINDS:
                    told = f"entries accept and decline, {key} never does; where time decides, start the clocks at it as well"
                    self.error(f"/intake/acceptance_rules/{place}/on", told, "unreachable", f"start: [accepted, {key}]")

    def _triggers(self) -> Iterator[tuple[str, str]]:
        """Every trigger of the document with its place."""
        document = self.document
        lists: list[tuple[str, Iterable[Any], tuple[str, ...]]] = [
            ("/routing", document.routing, ("on",)),
            ("/workflow/states", document.workflow.states, ("on",)),
            ("/workflow/gates", document.workflow.gates, ("on",)),
            ("/clocks", document.clocks, ("start", "stop", "cancel")),
            ("/actions", document.actions, ("on", "unless")),
            ("/subjects", document.subjects, ("on",)),
            ("/penalties/rules", document.penalties.rules, ("on",)),
            ("/messages", document.messages, ("on",)),
            ("/duties", document.duties, ("proof",)),
        ]
        for base, rules, names in lists:
            for place, rule in enumerate(rules):
                for name in names:
                    given = getattr(rule, name)
                    for number, one in enumerate(given if isinstance(given, list) else [given]):
                        where = f"{base}/{place}/{name}" + (f"/{number}" if isinstance(given, list) else "")
                        yield where, one.on if isinstance(one, schema.Trigger) else one

    def _cycles(self) -> None:
        """Rules that create their own trigger."""
        causes: dict[str, set[str]] = {}
        places: dict[str, str] = {}

        def edge(given: Any, effect: str, path: str) -> None:
            for key in _keys(given):
                head = key.partition(":")[0]
                if head not in ENTRY_KINDS:
                    causes.setdefault(key, set()).add(effect)
                    places.setdefault(effect, path)

        for place, state in enumerate(self.document.workflow.states):
            edge(state.on, f"state:{state.state}", f"/workflow/states/{place}")
        for place, action in enumerate(self.document.actions):
            path = f"/actions/{place}"
            edge(action.on, f"action:{action.id}", path)
            if action.state is not None:
                edge(action.on, f"state:{action.state}", path)
            elif any(do.kind == "closed" and do.what is None for do in action.do):
                edge(action.on, "state:closed", path)
        for place, penalty in enumerate(self.document.penalties.rules):
            edge(penalty.on, f"penalty:{penalty.id}", f"/penalties/rules/{place}")
            edge(penalty.on, f"imposed:{penalty.id}", f"/penalties/rules/{place}")
        for place, subject in enumerate(self.document.subjects):
            edge(subject.on, f"count:{subject.id}", f"/subjects/{place}")
        for start in list(causes):
            trail = _cycle(start, causes)
            if trail is not None and min(trail) == start:
                shown = " → ".join([*trail, start])
                self.error(places.get(start, ""), f"the rules create their own trigger: {shown}", "cycle")

    def _states(self) -> None:
        declared = self.document.vocabulary.states
        known = set(compiled_states()) | set(declared)
        entered = {rule.state for rule in self.document.workflow.states}
        entered |= {action.state for action in self.document.actions if action.state}
        if declared and self.document.workflow.initial not in known:
            initial = self.document.workflow.initial
            self.error("/workflow/initial", f"there is no state {initial} under vocabulary.states", "unknown-name")
        for name in declared:
            if name not in entered and name not in compiled_states() and name != self.document.workflow.initial:
                path = f"/vocabulary/states/{escape(name)}"
                self.warn(path, f"nothing enters the state {name}", "unused")
        for place, rule in enumerate(self.document.workflow.states):
            if declared and rule.state not in known:
                path = f"/workflow/states/{place}/state"
                self.error(path, f"there is no state {rule.state} under vocabulary.states", "unknown-name")
        for place, name in enumerate(self.document.workflow.closed):
            if name not in known and name not in entered:
                self.error(f"/workflow/closed/{place}", f"there is no state {name}", "unknown-name")

    def _classes(self) -> None:
        """A rule behind one that always holds never comes to its turn."""
        settled: dict[tuple[str, bool], int] = {}
        for place, rule in enumerate(self.document.classification):
            if rule.on is not None:
                continue
            for part in rule.set:
                before = settled.get((part, rule.override))
                if before is not None:
                    path = f"/classification/{place}"
                    told = f"rule {before} always sets the {part}, so this one never comes to its turn"
                    self.error(path, told, "unreachable", "put the rule without a condition last")
                elif rule.when is None:
                    settled[part, rule.override] = place

    def _gates(self) -> None:
        """Entries that nobody may ever make, though something waits for them."""
        closed: dict[str, str] = {}
        for place, gate in enumerate(self.document.workflow.gates):
            if gate.by is None and gate.when is None:
                for key in _unconditional(gate.on):
                    closed[key] = f"/workflow/gates/{place}"
        for place, clock in enumerate(self.document.clocks):
            stops = set(_keys(clock.stop))
            if stops and all(key in closed for key in stops) and clock.kind == "limit":
                told = f"the clock {clock.id} waits for {', '.join(sorted(stops))}, which is always refused"
                self.error(f"/clocks/{place}/stop", told, "never-met")
        for place, gate in enumerate(self.document.workflow.gates):
            for name in gate.by or []:
                if isinstance(name, str) and not name.startswith("=") and name not in self.compiler.names:
                    common = (
                        "complainant",
                        "respondent",
                        "respondent_supervisor",
                        "handler",
                        "handler_head",
                        "head",
                        "supervisor",
                    )
                    if name not in common and name not in ("system", "admin"):
                        told = f"there is no unit, role or group {name}, so this gate lets nobody through"
                        self.error(
                            f"/workflow/gates/{place}/by", told, "unknown-name", near_miss(name, self.compiler.names)
                        )

    # -- penalties -------------------------------------------------------------------------------------------------------

    def _penalties(self) -> None:
        for place, rule in enumerate(self.document.penalties.rules):
            path = f"/penalties/rules/{place}"
            if not rule.impose:
                self.error(f"{path}/impose", f"the penalty {rule.id} imposes nothing", "does-nothing")
            for number, item in enumerate(rule.impose):
                self._imposed(item, f"{path}/impose/{number}")
        used = {rule.stack for rule in self.document.penalties.rules if rule.stack}
        for name in self.document.penalties.stacks:
            if name not in used:
                self.warn(f"/penalties/stacks/{escape(name)}", f"no penalty stands in the stack {name}", "unused")

    def _imposed(self, item: schema.Imposed, path: str) -> None:
        for place, factor in enumerate(item.multiply):
            if isinstance(factor.by, str) and not factor.by.startswith("=") and _decimal(factor.by) is None:
                self.error(
                    f"{path}/multiply/{place}/by", f"{factor.by} is no factor such as 2 or 0.5", "penalty-amount"
                )
        parts = None if item.instalments is None else item.instalments.count
        if parts is not None and not (isinstance(parts, str) and parts.startswith("=")):
            number = _decimal(str(parts))
            if number is None or number != int(number) or not 1 <= number <= MOST_INSTALMENTS:
                told = f"{parts} is no number of instalments between 1 and {MOST_INSTALMENTS}"
                self.error(f"{path}/instalments/count", told, "penalty-amount")
        for name in ("amount", "at_least", "at_most"):
            value = getattr(item, name)
            if isinstance(value, str) and value.startswith("-"):
                self.error(f"{path}/{name}", "an amount below nothing is none that can be owed", "penalty-amount")
        percents = [(f"{path}/percent", item.percent)]
        percents += [(f"{path}/percent_range/{place}", one) for place, one in enumerate(item.percent_range or [])]
        percents += [(f"{path}/tiers/{place}/percent", tier.percent) for place, tier in enumerate(item.tiers)]
        for where, percent in percents:
            found = _decimal(percent)
            if isinstance(percent, str) and not percent.startswith("=") and (found is None or not 0 <= found <= 100):
                self.error(where, f"{percent} is no percentage between 0 and 100", "penalty-percent")
        if item.percent_range is not None:
            if len(item.percent_range) != 2:
                self.error(f"{path}/percent_range", "a range has two ends", "penalty-range")
            else:
                low, high = (_decimal(one) for one in item.percent_range)
                if low is not None and high is not None and low > high:
                    self.error(f"{path}/percent_range", "the range ends before it begins", "penalty-range")
        edges = [self.compiler.money(tier.to, path) for tier in item.tiers]
        for place, edge in enumerate(edges):
            last = place == len(edges) - 1
            if edge is None and not last:
                self.error(f"{path}/tiers/{place}", "only the last tier has no upper edge", "penalty-tiers")
            before = edges[place - 1] if place else None
            if edge is not None and before is not None and edge <= before:
                self.error(f"{path}/tiers/{place}/to", "the edges of tiers must rise", "penalty-tiers")

    # -- intake, messages, settings --------------------------------------------------------------------------------------

    def _intake(self) -> None:
        intake = self.document.intake
        if "{N" not in intake.numbering.pattern:
            self.error(
                "/intake/numbering/pattern", "without {N} all complaints of a period bear one number", "numbering"
            )
        needed = {"day": ("{YY", "{MM}", "{DD}"), "month": ("{YY", "{MM}"), "year": ("{YY",), "never": ()}
        for part in needed[intake.numbering.reset]:
            if part not in intake.numbering.pattern and "{YYYY}" not in (part, intake.numbering.pattern):
                told = (
                    f"the counter starts anew each {intake.numbering.reset}, but the pattern does not show it ({part})"
                )
                self.error("/intake/numbering/pattern", told, "numbering")
                break
        for path, text in (("/intake/retention", intake.retention),) + (
            () if intake.duplicates is None else (("/intake/duplicates/window", intake.duplicates.window),)
        ):
            try:
                parse_amount(text)
            except ValueError as error:
                self.error(path, str(error), "amount")
        if not intake.channels:
            self.warn("/intake/channels", "no channel is declared, so any is taken", "no-channels")

    def _messages(self) -> None:
        known = {*self.compiler.names, *COMMON_NAMES}
        for place, rule in enumerate(self.document.messages):
            for number, name in enumerate(rule.to):
                if isinstance(name, str) and not name.startswith("=") and name not in known:
                    told = f"there is no unit, role or group {name}, so only a member of staff with this id is told"
                    self.warn(f"/messages/{place}/to/{number}", told, "unknown-name", near_miss(name, known))
        fields = shown_fields(self.document.vocabulary.fields)
        clocks = [*self.policy.clocks, *(duty.id for duty in self.document.duties)]
        for place, rule in enumerate(self.document.messages):
            path = f"/messages/{place}"
            try:
                parse_quiet_hours(rule.quiet_hours or "21:00-08:00")
            except ValueError:
                told = f"{rule.quiet_hours} is no span of hours such as 21:00-08:00"
                self.error(f"{path}/quiet_hours", told, "quiet-hours")
            for part in ("template", "subject"):
                text = getattr(rule, part)
                for language, one in text.items() if isinstance(text, Mapping) else [("", text)]:
                    for found in wording_problems(one, fields=fields, clocks=clocks):
                        where = f"{path}/{part}" + (f"/{language}" if language else "")
                        line = f" (line {found.line})" if found.line and found.line > 1 else ""
                        self.error(where, f"the template does not work: {found.detail}{line}", "template")

    def _settings(self) -> None:
        text = repr({name: part for name, part in self.compiler.raw.items() if name != "settings"})
        for name in self.document.settings:
            if (
                f"'{name}'" not in text
                and f'"{name}"' not in text
                and not re.search(rf"\bsettings\.{re.escape(name)}\b", text)
            ):
                clause, _, last = name.rpartition(".")
                used = (
                    last in ("asap_target", "hour_mode", "count_first_day", "roll")
                    and clause in self.policy.clause_rules
                )
                if not used:
                    self.warn(f"/settings/{escape(name)}", f"no rule reads the setting {name}", "unused")

    def _clauses(self) -> None:
        """Clauses that the catalogue of the regime does not have."""
        regime = self.document.regime
        known = set(catalogue.clause_ids())
        if regime is None or regime not in catalogue.regimes():
            return
        for clause, rules in self.policy.clause_rules.items():
            if clause not in known:
                self.error("", f"{clause} (carried by {rules[0]}) is no clause of the catalogue", "unknown-clause")

    def _constants(self) -> None:
        """Conditions that are always true or always false."""
        env = Environment(variables(self.document), currency=self.document.currency, optional=NULLABLE)
        for path, text in _conditions(self.compiler.raw, ""):
            try:
                program = compile_expression(text, env, BOOL)
            except ExpressionError:
                continue
            if program.is_constant:
                told = "always true: leave it out" if program.constant else "never true: the rule does nothing"
                self.warn(path, f"the condition is {told}", "constant-condition")


def _conditions(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            where = f"{path}/{escape(str(key))}"
            if key in ("when", "while") and isinstance(inner, str):
                yield where, inner
            else:
                yield from _conditions(inner, where)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _conditions(inner, f"{path}/{place}")


def _keys(given: Any) -> list[str]:
    listed = given if isinstance(given, list) else [given]
    return [one.on if isinstance(one, schema.Trigger) else one for one in listed]


def _unconditional(given: Any) -> set[str]:
    listed = given if isinstance(given, list) else [given]
    return {
        one.on if isinstance(one, schema.Trigger) else one
        for one in listed
        if not isinstance(one, schema.Trigger) or one.when is None
    }


def _cycle(start: str, causes: Mapping[str, set[str]]) -> list[str] | None:
    """A way from a trigger back to itself."""
    trail, seen = [start], {start}

    def walk(key: str) -> bool:
        for following in sorted(causes.get(key, ())):
            if following == start:
                return True
            if following not in seen:
                seen.add(following)
                trail.append(following)
                if walk(following):
                    return True
                trail.pop()
        return False

    return trail if walk(start) else None


def _is_day(text: str) -> bool:
    try:
        return bool(date.fromisoformat(f"2026-{text}"))
    except ValueError:
        return False


def _decimal(value: Any) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None
