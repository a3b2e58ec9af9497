"""From a policy document to rules the engine can run, or to everything that is wrong with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any

import msgspec

from shared.engine import rules as compiled
from shared.engine.amounts import Amount, parse_amount
from shared.engine.calendar import CalendarSection, Counting
from shared.engine.model import EFFECT_KINDS, ENTRY_KINDS, Step
from shared.engine.rules import (
    ACCEPTANCE,
    CLASS_NAMES,
    CLASS_PARTS,
    CLASSES,
    COMPLAINT_PARTS,
    DECIDES_ACCEPTANCE,
    ON_THE_LEDGER,
    RARE,
    TELLING,
    WHILES,
    CompiledPolicy,
    Handlers,
    Inputs,
    Kept,
    clauses_of,
)
from shared.money import exponent, format_minor, parse_minor
from shared.policy import schema
from shared.policy.cel import (
    BOOL,
    DYN,
    INSTANT,
    MONEY,
    Environment,
    ExpressionError,
    Program,
    compile_expression,
    compile_value,
    near_miss,
)
from shared.policy.cel.types import EnumType, RecordType
from shared.policy.documents import Document, DocumentError, parse
from shared.policy.naming import COMMON_NAMES
from shared.policy.problems import PolicyError, PolicyProblem
from shared.policy.schema import Policy
from shared.policy.scope import FACT_OPTIONAL, fact_variables, variables
from shared.policy.settings import substitute, values_of
from shared.policy.shapes import shape_problem

ENGINE_TRIGGERS = {
    "breach": "the limit of the clock or duty has passed",
    "fired": "a clock of the kind `timer` has come to its end",
    "met": "the clock was stopped in time",
    "late": "the clock was stopped after its limit had passed",
    "started": "the clock was started",
    "count": "the counter has reached its threshold; without a threshold, each time it counts",
    "penalty": "the amount of the penalty is known, at once or by a decision",
    "imposed": "the penalty has come about, decided or not",
    "state": "the state was entered",
    "class": "kind, category, severity, priority or respondent has changed, was known for the first time, or was stated again",
    "decision": "the complaint counts as `accepted` or `declined`",
    "action": "the action was done",
}
"""What the engine finds out, by the word before the colon."""
TOLD_TRIGGERS = ("effect", "penalty")
NULLABLE = frozenset({"clock", "count", "penalty", "by", "actor_unit"})


def compile_policy(
    source: Document | Mapping[str, Any] | str | bytes,
    settings: Mapping[str, Any] | None = None,
    version: int = 1,
    *,
    calendar: CalendarSection | None = None,
) -> CompiledPolicy:
    """Return the policy ready to run.

    Args:
        source: the document as text, parsed, or as plain values.
        settings: the tenant's choices, by the ids of the document's `settings`.
        version: under which it is published.
        calendar: used instead of the document's own, under every name (scenarios).

    Raises:
        PolicyError: with everything found.
    """
    return Compiler(source, settings or {}, version, calendar).run()


def decode_policy(values: Mapping[str, Any]) -> Policy:
    """The document as Structs. Raises msgspec.ValidationError with the path to the first mistake."""
    return msgspec.convert(values, Policy)


# Policies are compiled in threads. What msgspec knows of a type it finds out at the first use, which several threads at once do
# not survive (a crash of the process, in 0.22); so the first use is here, while this module is imported.
msgspec.json.Decoder(Policy)


class Compiler:
    """One run over one document; collects problems instead of stopping at the first."""

    def __init__(
        self,
        source: Document | Mapping[str, Any] | str | bytes,
        settings: Mapping[str, Any],
        version: int,
        calendar: CalendarSection | None,
    ) -> None:
        self.problems: list[PolicyProblem] = []
        self.version = version
        self.calendar = calendar
        self.chosen = settings
        self.origins: dict[str, str] = {}
        self.marks: Mapping[str, Any] = {}
        if isinstance(source, str | bytes):
            try:
                source = parse(source)
            except DocumentError as error:
                mark = error.mark
                raise PolicyError(
                    [
                        PolicyProblem(
                            path=error.pointer,
                            message=error.message,
                            code="document",
                            line=None if mark is None else mark.line,
                            column=None if mark is None else mark.column,
                        )
                    ]
                ) from None
        if isinstance(source, Document):
            self.marks = source.marks
            source = source.values
        self.raw: Mapping[str, Any] = source
        self.clause_rules: dict[str, list[str]] = {}
        self.on: dict[str, Handlers] = {}

    # -- problems ----------------------------------------------------------------------------------------------------------------------

    def problem(
        self, path: str, message: str, *, code: str = "invalid", suggestion: str | None = None, warning: bool = False
    ) -> None:
        self.problems.append(
            PolicyProblem(
                path=path, message=message, severity="warning" if warning else "error", code=code, suggestion=suggestion
            )
        )

    def placed(self, found: PolicyProblem) -> PolicyProblem:
        """The problem with the pointer and the line of the document as it was written."""
        path = found.path
        while path and path not in self.origins:
            path = path.rpartition("/")[0]
        origin = self.origins.get(path, path) + found.path[len(path) :]
        mark = None
        probe = origin
        while mark is None and probe:
            mark = self.marks.get(probe)
            probe = probe.rpartition("/")[0]
        if mark is None:
            return msgspec.structs.replace(found, path=origin)
        return msgspec.structs.replace(found, path=origin, line=mark.line, column=mark.column)

    def _fail(self) -> None:
        if any(found.severity == "error" for found in self.problems):
            raise PolicyError([self.placed(found) for found in self.problems])

    # -- the run -----------------------------------------------------------------------------------------------------------------------

    def run(self) -> CompiledPolicy:
        declared = self.raw.get("settings") or {}
        if not isinstance(declared, Mapping):
            raise PolicyError(
                [PolicyProblem(path="/settings", message="settings are a mapping from id to what may be chosen")]
            )
        self.values = values_of(declared, self.chosen, self.problems)
        self._fail()
        substituted, self.origins = substitute(self.raw, self.values, self.problems)
        self._fail()
        try:
            policy = decode_policy(substituted)
        except msgspec.ValidationError as error:
            raise PolicyError([self.placed(shape_problem(error, substituted, decode_policy))]) from None
        self.policy = policy
        self.section = self.calendar or policy.calendar
        self._names()
        known = variables(policy, EnumType(tuple(self._triggers()), "trigger"))
        self.env = Environment(known, currency=policy.currency, optional=NULLABLE)
        self.fact_env = Environment(fact_variables(policy), currency=policy.currency, optional=FACT_OPTIONAL)
        result = self._compile(policy)
        self._fail()
        return result

    def _names(self) -> None:
        policy, words = self.policy, self.policy.vocabulary
        # A rule that a setting leaves out may still be named by others: what it never does, they never see.
        self.clock_ids = {*self._ids("clocks"), *self._ids("duties")}
        self.action_ids = self._ids("actions")
        self.penalty_ids = self._ids("penalties", "rules")
        self.subject_ids = self._ids("subjects")
        self.states = {
            policy.workflow.initial,
            *words.states,
            *(rule.state for rule in policy.workflow.states),
            *compiled_states(),
        }
        self.names = {*policy.organisation.units, *policy.organisation.roles, *policy.organisation.groups}
        for what, ids in (
            ("clocks", [clock.id for clock in policy.clocks]),
            ("duties", [duty.id for duty in policy.duties]),
            ("actions", [action.id for action in policy.actions]),
            ("penalties/rules", [penalty.id for penalty in policy.penalties.rules]),
            ("subjects", [subject.id for subject in policy.subjects]),
        ):
            seen: set[str] = set()
            for place, name in enumerate(ids):
                if name in seen:
                    self.problem(f"/{what}/{place}/id", f"the id {name} stands twice", code="duplicate-id")
                seen.add(name)

    def _ids(self, *section: str) -> set[str]:
        """The ids of a section as it was written, before settings left anything out."""
        found: Any = self.raw
        for name in section:
            found = found.get(name) if isinstance(found, Mapping) else None
        return {str(one["id"]) for one in found or [] if isinstance(one, Mapping) and "id" in one}

    # -- expressions -------------------------------------------------------------------------------------------------------------------

    def expr(self, text: str | None, path: str, env: Environment | None = None) -> Any:
        """A condition as a function of the scope; None stays None."""
        if text is None:
            return None
        try:
            program = compile_expression(text, env or self.env, BOOL)
        except ExpressionError as error:
            for one in error.problems:
                self.problem(
                    path,
                    f"{one.message} (line {one.line}, column {one.column})",
                    code="expression",
                    suggestion=one.suggestion,
                )
            return None
        self._program(program, path)
        return program.run

    def _program(self, program: Program, path: str) -> None:
        self.reads[path] = self.reads.get(path, frozenset()) | program.paths
        for one in program.warnings:
            self.problem(
                path,
                f"{one.message} (column {one.column})",
                code="may-be-empty",
                suggestion=one.suggestion,
                warning=True,
            )

    def val(self, value: Any, path: str, want: Any = DYN, env: Environment | None = None) -> Any:
        """A constant, or a function of the scope. Money in free values comes as decimal text, as everywhere outside expressions."""
        if isinstance(value, list):
            parts = [self.val(item, f"{path}/{place}", want, env) for place, item in enumerate(value)]
            if any(callable(part) for part in parts):
                return lambda scope: [part(scope) if callable(part) else part for part in parts]
            return parts
        if not (isinstance(value, str) and value.startswith("=")):
            return value
        try:
            program = compile_value(value, env or self.env, want)
        except ExpressionError as error:
            for one in error.problems:
                self.problem(
                    path,
                    f"{one.message} (line {one.line}, column {one.column})",
                    code="expression",
                    suggestion=one.suggestion,
                )
            return None
        if not isinstance(program, Program):
            return program
        self._program(program, path)
        if want is DYN and program.type is MONEY:
            run, currency = program.run, self.policy.currency

            def as_text(scope: Any) -> Any:
                found = run(scope)
                return None if found is None else format_minor(found, currency)

            return as_text
        return program.run

    def vals(self, value: Any, path: str) -> tuple[Any, ...]:
        """A list with fallbacks."""
        if value is None:
            return ()
        if isinstance(value, list):
            return tuple(self.val(item, f"{path}/{place}") for place, item in enumerate(value))
        return (self.val(value, path),)

    def data(self, values: Mapping[str, Any], path: str) -> tuple[tuple[str, Any], ...]:
        return tuple((name, self.val(value, f"{path}/{name}")) for name, value in values.items())

    def money(self, text: Any, path: str) -> int | None:
        if text is None:
            return None
        try:
            return parse_minor(str(text), self.policy.currency)
        except ValueError as error:
            self.problem(path, str(error), code="amount")
            return None

    def amount(self, text: Any, path: str) -> Amount | None:
        if text is None:
            return None
        try:
            return parse_amount(text)
        except ValueError as error:
            self.problem(path, str(error), code="amount")
            return None

    # -- triggers ------------------------------------------------------------------------------------------------------------------------

    def triggers(self, given: Any, path: str, *, told: bool = False) -> list[tuple[str, Any]]:
        """(key, condition) of each; unknown ones are problems with the near-miss. `told`: of a message, see `trigger`."""
        found = []
        listed = given if isinstance(given, list) else [given]
        for place, one in enumerate(listed):
            where = f"{path}/{place}" if isinstance(given, list) else path
            if isinstance(one, schema.Trigger):
                self.trigger(one.on, f"{where}/on", told=told)
                found.append((one.on, self.expr(one.when, f"{where}/when")))
            else:
                self.trigger(one, where, told=told)
                found.append((one, None))
        return found

    def trigger(self, key: str, path: str, *, told: bool = False) -> None:
        """Check one trigger. Messages are `told` of entries, effects and postings; the fold sees all but its own effects."""
        head, colon, rest = key.partition(":")
        if told and head in ENGINE_TRIGGERS and head not in TOLD_TRIGGERS:
            self.problem(
                path,
                f"{key}: messages follow entries, effects and penalties; let a step or an action have an effect, and follow that",
                code="untold-trigger",
                suggestion="effect:notified",
            )
            return
        if head == "effect" and not told:
            self.problem(
                path,
                f"{key}: only messages follow effects; name here what has the effect",
                code="untold-trigger",
                suggestion="breach:ID, action:ID",
            )
            return
        if not colon:
            if head in ENTRY_KINDS:
                if head == "step":
                    self.problem(path, "name the step: step:NAME", code="unknown-trigger")
                return
            steps = self.policy.vocabulary.steps
            hint = f"step:{head}" if head in steps else near_miss(head, ENTRY_KINDS)
            self.problem(path, f"{head} is no kind of entry", code="unknown-trigger", suggestion=hint)
            return
        known = self._named_after(head)
        if known is None:
            self.problem(
                path,
                f"{head} is neither a kind of entry nor a trigger of the engine",
                code="unknown-trigger",
                suggestion=near_miss(head, [*ENTRY_KINDS, *ENGINE_TRIGGERS]),
            )
            return
        if rest not in known:
            self.problem(
                path,
                f"{key}: there is no {rest} here",
                code="unknown-trigger",
                suggestion=_prefixed(head, near_miss(rest, known)),
            )

    def _named_after(self, head: str) -> Iterable[str] | None:
        """What may follow the colon of a trigger; None: it is no trigger."""
        if head in ENTRY_KINDS:
            return self.policy.vocabulary.steps
        match head:
            case "breach" | "fired" | "met" | "late" | "started":
                return self.clock_ids
            case "count":
                return self.subject_ids
            case "penalty" | "imposed":
                return self.penalty_ids
            case "state":
                return self.states
            case "class":
                return CLASS_PARTS
            case "decision":
                return ("accepted", "declined")
            case "action":
                return self.action_ids
            case "effect":
                return EFFECT_KINDS
        return None

    def _triggers(self) -> Iterator[str]:
        """Every trigger that can ever be seen; effects are seen by messages alone."""
        yield from ENTRY_KINDS
        for head in (*ENTRY_KINDS, *ENGINE_TRIGGERS):
            if head != "effect":
                yield from (f"{head}:{rest}" for rest in self._named_after(head) or ())

    def handlers(self, key: str) -> Handlers:
        return self.on.setdefault(key, Handlers())

    def covers(self, clause: Any, rule: str) -> None:
        for one in clauses_of(clause):
            self.clause_rules.setdefault(one, []).append(rule)

    # -- sections ------------------------------------------------------------------------------------------------------------------------

    def _compile(self, policy: Policy) -> CompiledPolicy:
        self.reads: dict[str, frozenset[str]] = {}  # what each expression reads, by its JSON pointer
        self._vocabulary_clauses()
        acceptance = self._acceptance()
        classes = self._classes()
        self._routes()
        self._states()
        self._gates()
        clocks, whiles, stops = self._clocks()
        duties = self._duties()
        self._actions()
        subjects = self._subjects()
        penalties = self._penalties()
        exclusions = tuple(
            (self.expr(one.when, f"/penalties/excluded/{place}/when"), frozenset(one.rules), one.clause)
            for place, one in enumerate(policy.penalties.excluded)
        )
        for place, one in enumerate(policy.penalties.excluded):
            self.covers(one.clause, f"penalties.excluded.{place}")
            for rule in one.rules:
                if rule not in self.penalty_ids:
                    self.problem(
                        f"/penalties/excluded/{place}/rules",
                        f"there is no penalty {rule}",
                        code="unknown-rule",
                        suggestion=near_miss(rule, self.penalty_ids),
                    )
        facts = []
        for place, fact in enumerate(policy.vocabulary.facts):
            path = f"/vocabulary/facts/{place}"
            self.covers(fact.clause, f"vocabulary.facts.{fact.name}")
            facts.append(
                compiled.FactRule(
                    fact.name,
                    fact.clause,
                    path,
                    self.expr(fact.when, f"{path}/when"),
                    fact.name,
                    self.val(fact.value, f"{path}/value"),
                )
            )
        for place, guidance in enumerate(policy.guidance):
            self.covers(guidance.clause, f"guidance.{place}")
        for place, left_out in enumerate(policy.by_design_not):
            self.covers(left_out.clause, f"by_design_not.{place}")
        reports = self._reports()
        messages = self._messages()
        inputs = {
            CLASSES: self._inputs([rule.path for rule in classes]),
            WHILES: self._inputs([f"{rule.path}/{part}" for rule in whiles for part in ("while", "when")]),
            ACCEPTANCE: self._inputs([rule.path for rule in acceptance]),
        }
        classifies = (
            bool(classes)
            or any(one.classes for one in self.on.values())
            or any(key.startswith("class:") for key in self.on)
        )
        readers = {name: sum(group for group, one in inputs.items() if name in one.names) for name in COMPLAINT_PARTS}
        asks_penalty = self._asks_penalty()
        for key, handlers in self.on.items():
            handlers.keys = (key,)
            handlers.reads_penalty = bool(asks_penalty) and (
                not asks_penalty.isdisjoint(handlers.paths())
                or bool(handlers.states or handlers.actions)  # whose own triggers go on with what this one was about
            )
            handlers.settle()
        return CompiledPolicy(
            version=self.version,
            regime=policy.regime,
            title=policy.title if isinstance(policy.title, str) else policy.title.get("en", ""),
            currency=policy.currency,
            exponent=exponent(policy.currency),
            document=policy,
            settings=self.values,
            on=self.on,
            entries=self._entries(judges=bool(acceptance) or any(one.acceptance for one in self.on.values())),
            initial=policy.workflow.initial,
            closed=frozenset({*policy.workflow.closed, "merged"}),
            accept_at_receipt=policy.intake.acceptance == "at_receipt",
            accept_when=self.expr(policy.intake.accept_when, "/intake/accept_when"),
            acceptance=acceptance,
            decline_clauses={
                name: term.clause if isinstance(term, schema.Term) else None
                for name, term in policy.intake.decline_reasons.items()
            },
            classes=classes,
            clocks=clocks,
            stop_triggers=stops,
            whiles=whiles,
            duties=duties,
            penalties=penalties,
            subjects=subjects,
            exclusions=exclusions,
            stacks={name: stack.mode for name, stack in policy.penalties.stacks.items()},
            facts=tuple(facts),
            reports=reports,
            messages=messages,
            warnings=tuple(self.placed(one) for one in self.problems if one.severity == "warning"),
            incomplete=self._incomplete(),
            word_clauses=_word_clauses(policy),
            awaited_class=tuple(
                (place, part, f"class:{part}") for place, part in enumerate(CLASS_PARTS) if f"class:{part}" in self.on
            ),
            groups=(CLASSES if classifies else 0) | (WHILES if whiles else 0) | (ACCEPTANCE if acceptance else 0),
            inputs=inputs,
            readers=readers,
            class_readers=sum(group for group, one in inputs.items() if not one.names.isdisjoint(CLASS_NAMES)),
            kept=self._kept(),
            calendar_name=self.section.default,
            counting=self.section.counting,
            clause_rules={clause: tuple(found) for clause, found in self.clause_rules.items()},
        )

    def _inputs(self, pointers: list[str]) -> Inputs:
        """What the expressions at or below some places of the document read of the case."""
        found: set[str] = set()
        for place, paths in self.reads.items():
            if any(place == pointer or place.startswith(f"{pointer}/") for pointer in pointers):
                for path in paths:
                    root, _, rest = path.partition(".")
                    if root not in ("complaint", "fields", "settings") or (root == "complaint" and not rest):
                        return Inputs(always=True)
                    if root == "complaint":
                        found.add(rest.partition(".")[0])
        return Inputs(itemgetter(*sorted(found)) if found else None, frozenset(found))

    def _entries(self, *, judges: bool) -> dict[str, Handlers]:
        """What each kind of entry sets off, by the rules and by itself; `judges`: the rules accept or decline."""
        states = _usual_states(self.policy)
        nothing = Handlers()
        found = {
            kind: replace(
                self.on.get(kind, nothing),
                keys=(kind,),
                usual_state=states.get(kind),
                judges=judges or kind in DECIDES_ACCEPTANCE,
                decides=kind in ON_THE_LEDGER,
                tells=kind in TELLING,
                is_rare=kind in RARE,
            )
            for kind in ENTRY_KINDS
        }
        for handlers in found.values():
            handlers.settle()
        return found

    def _asks_penalty(self) -> frozenset[str]:
        """The places of rules that ask about a penalty when it comes about, and not only for the amount of another."""
        found: set[str] = set()
        for place, paths in self.reads.items():
            if "/impose/" not in place and any(path.partition(".")[0] == "penalty" for path in paths):
                parts = place.split("/")
                found.update(
                    "/".join(parts[:end]) for end in range(2, len(parts) + 1)
                )  # the rule is one of what holds it
        return frozenset(found)

    def _kept(self) -> Kept:
        """What of the entries any expression reads."""
        paths = frozenset().union(*self.reads.values())
        last = [path.removeprefix("last.").split(".") for path in paths if path.startswith("last.")]
        lists = self.env.variables["collected"]
        return Kept(
            entries=any(path.partition(".")[0] == "entries" for path in paths),
            # A trigger may have dots in it: each beginning of the path could be one.
            last=None
            if "last" in paths
            else frozenset(".".join(parts[:end]) for parts in last for end in range(1, len(parts) + 1)),
            collected=tuple(
                name
                for name in (lists.fields if isinstance(lists, RecordType) else ())
                if "collected" in paths or any(f"{path}.".startswith(f"collected.{name}.") for path in paths)
            ),
        )

    def _vocabulary_clauses(self) -> None:
        """Clauses that words carry: a channel, a field, a step, a unit that the regime names."""
        policy, words = self.policy, self.policy.vocabulary
        sections: dict[str, Mapping[str, Any]] = {
            "vocabulary.kinds": words.kinds,
            "vocabulary.categories": words.categories,
            "vocabulary.severities": words.severities,
            "vocabulary.outcomes": words.outcomes,
            "vocabulary.states": words.states,
            "vocabulary.fields": words.fields,
            "vocabulary.steps": words.steps,
            "vocabulary.sanctions": words.sanctions,
            "vocabulary.tasks": words.tasks,
            "organisation.units": policy.organisation.units,
            "organisation.roles": policy.organisation.roles,
            "organisation.groups": policy.organisation.groups,
            "intake.channels": policy.intake.channels,
            "intake.decline_reasons": policy.intake.decline_reasons,
            "settings": policy.settings,
        }
        for section, terms in sections.items():
            for name, term in terms.items():
                if not isinstance(term, str):
                    self.covers(term.clause, f"{section}.{name}")
        self.covers(policy.intake.clause, "intake")
        self.covers(policy.intake.numbering.clause, "intake.numbering")
        for name, group in policy.organisation.groups.items():
            for member in group.members:
                if member not in self.names:
                    self.problem(
                        f"/organisation/groups/{name}/members",
                        f"there is no unit or role {member}",
                        code="unknown-name",
                        suggestion=near_miss(member, self.names),
                    )
        for name, stack in policy.penalties.stacks.items():
            self.covers(stack.clause, f"penalties.stacks.{name}")

    def _acceptance(self) -> tuple[compiled.AcceptanceRule, ...]:
        standing = []
        reasons = self.policy.intake.decline_reasons
        for place, rule in enumerate(self.policy.intake.acceptance_rules):
            path = f"/intake/acceptance_rules/{place}"
            made = compiled.AcceptanceRule(
                f"intake.acceptance_rules.{place}",
                rule.clause,
                path,
                self.expr(rule.when, f"{path}/when"),
                rule.accepted,
                self.val(rule.reason, f"{path}/reason"),
            )
            self.covers(rule.clause, made.id)
            if (
                not rule.accepted
                and isinstance(rule.reason, str)
                and not rule.reason.startswith("=")
                and rule.reason not in reasons
            ):
                self.problem(
                    f"{path}/reason",
                    f"there is no reason {rule.reason} under decline_reasons",
                    code="unknown-name",
                    suggestion=near_miss(rule.reason, reasons),
                )
            if rule.on is None:
                standing.append(made)
            else:
                for key, condition in self.triggers(rule.on, f"{path}/on"):
                    self.handlers(key).acceptance += ((condition, made),)
        return tuple(standing)

    def _classes(self) -> tuple[compiled.ClassRule, ...]:
        found = []
        words = self.policy.vocabulary
        known: dict[str, Iterable[str]] = {
            "kind": words.kinds,
            "category": words.categories,
            "severity": words.severities,
        }
        for place, rule in enumerate(self.policy.classification):
            path = f"/classification/{place}"
            for part, value in rule.set.items():
                names = known.get(part)
                literal = isinstance(value, str) and not value.startswith("=")
                if names is not None and literal and value not in names:
                    self.problem(
                        f"{path}/set/{part}",
                        f"there is no {part} {value}",
                        code="unknown-name",
                        suggestion=near_miss(value, names),
                    )
            made = compiled.ClassRule(
                rule.id or f"classification.{place}",
                rule.clause,
                path,
                self.expr(rule.when, f"{path}/when"),
                tuple((part, self.val(value, f"{path}/set/{part}")) for part, value in rule.set.items()),
                rule.override,
            )
            self.covers(rule.clause, made.id)
            if rule.on is None:
                found.append(made)
            else:
                for key, condition in self.triggers(rule.on, f"{path}/on"):
                    self.handlers(key).classes += ((condition, made),)
        return tuple(found)

    def _routes(self) -> None:
        for place, rule in enumerate(self.policy.routing):
            path = f"/routing/{place}"
            self._known_names((rule.unit, rule.role), path)
            made = compiled.RouteRule(
                rule.id or f"routing.{place}",
                rule.clause,
                path,
                self.expr(rule.when, f"{path}/when"),
                self.val(rule.unit, f"{path}/unit"),
                self.val(rule.role, f"{path}/role"),
                self.val(rule.staff, f"{path}/staff"),
                self.val(rule.members, f"{path}/members"),
                self.val(rule.as_, f"{path}/as"),
                rule.auto,
            )
            self.covers(rule.clause, made.id)
            for key, condition in self.triggers(rule.on, f"{path}/on"):
                self.handlers(key).routes += ((condition, made),)

    def _known_names(self, values: Iterable[Any], path: str) -> None:
        for value in values:
            for one in value if isinstance(value, list) else [value]:
                if (
                    isinstance(one, str)
                    and not one.startswith("=")
                    and one not in self.names
                    and one not in COMMON_NAMES
                ):
                    self.problem(
                        path,
                        f"there is no unit, role or group {one}",
                        code="unknown-name",
                        suggestion=near_miss(one, self.names),
                    )

    def _states(self) -> None:
        for place, rule in enumerate(self.policy.workflow.states):
            path = f"/workflow/states/{place}"
            made = compiled.StateRule(
                f"workflow.states.{place}", rule.clause, path, self.expr(rule.when, f"{path}/when"), rule.state
            )
            self.covers(rule.clause, f"workflow.states.{rule.state}")
            for key, condition in self.triggers(rule.on, f"{path}/on"):
                self.handlers(key).states += ((condition, made),)

    def _gates(self) -> None:
        for place, rule in enumerate(self.policy.workflow.gates):
            path = f"/workflow/gates/{place}"
            by = None if rule.by is None else self.vals(rule.by, f"{path}/by")
            made = compiled.GateRule(
                rule.id or f"workflow.gates.{place}",
                rule.clause,
                path,
                self.expr(rule.when, f"{path}/when"),
                by,
                self.val(rule.reason, f"{path}/reason"),
            )
            if rule.by is None and rule.when is None and rule.reason == "":
                self.problem(path, "a gate needs `by`, `when` or a reason", code="empty-gate")
            self.covers(rule.clause, made.id)
            for key, condition in self.triggers(rule.on, f"{path}/on"):
                self.handlers(key).gates += ((condition, made),)
        for place, required in enumerate(self.policy.intake.required):
            path = f"/intake/required/{place}"
            text = " || ".join(f"{self._field_path(name, f'{path}/fields')} == null" for name in required.fields)
            if required.when is not None:
                text = f"({required.when}) && ({text})"
            made = compiled.GateRule(
                f"intake.required.{place}",
                required.clause,
                path,
                self.expr(text, path),
                None,
                self.val(required.reason, f"{path}/reason"),
            )
            self.covers(required.clause, made.id)
            for key, condition in self.triggers(required.before, f"{path}/before"):
                self.handlers(key).gates += ((condition, made),)

    def _field_path(self, name: str, path: str) -> str:
        if "." in name:
            return name
        if name not in self.policy.vocabulary.fields:
            self.problem(
                path,
                f"there is no field {name}",
                code="unknown-name",
                suggestion=near_miss(name, self.policy.vocabulary.fields),
            )
        return f"fields.{name}"

    def _do(self, given: Iterable[schema.Do], path: str) -> tuple[compiled.Do, ...]:
        found = []
        for place, do in enumerate(given):
            where = f"{path}/{place}"
            self._known_names((do.to,), f"{where}/to")
            known = {*self.policy.vocabulary.tasks, *self.policy.vocabulary.outcomes}
            literal = isinstance(do.what, str) and not do.what.startswith("=")
            if literal and do.what not in known:
                self.problem(
                    f"{where}/what",
                    f"there is no task or outcome {do.what}",
                    code="unknown-name",
                    suggestion=near_miss(do.what, known),
                )
            to = self.val(do.to, f"{where}/to")
            what = self.val(do.what, f"{where}/what")
            by = self.val(do.by, f"{where}/by")
            data = self.data(do.data, f"{where}/data")
            computed = any(callable(part) for part in (to, what, by)) or bool(data)
            found.append(compiled.Do(do.kind, to, what, by, data, literal=not computed))
        return tuple(found)

    def _counting(self, clause: Any, change: schema.CountingChange | None) -> Counting:
        """The calendar's way of counting, as the rule changes it, as the tenant changes it for the clause."""
        changes = {}
        if change is not None:
            changes = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
        for one in clauses_of(clause):
            for name in ("count_first_day", "roll", "hour_mode"):
                value = self.values.get(f"{one}.{name}")
                if value is not None:
                    changes[name] = value
        return msgspec.structs.replace(self.section.counting, **changes) if changes else self.section.counting

    def _clock_rule(self, clock: schema.Clock, path: str) -> compiled.ClockRule:
        cases: list[tuple[Any, Any]] = []
        within = clock.within
        if within is None:
            for one in clauses_of(clock.clause):
                within = within or self.values.get(f"{one}.asap_target")
        if isinstance(within, list):
            for place, case in enumerate(within):
                where = f"{path}/within/{place}"
                if not isinstance(case, Mapping) or "is" not in case or not set(case) <= {"is", "when"}:
                    self.problem(where, "a case has `is` and usually `when`", code="shape")
                    continue
                cases.append((self.expr(case.get("when"), f"{where}/when"), self._limit(case["is"], f"{where}/is")))
        elif within is not None:
            cases.append((None, self._limit(within, f"{path}/within")))
        rungs = []
        for place, step in enumerate(clock.steps):
            where = f"{path}/steps/{place}"
            if (step.before is None) == (step.after is None):
                self.problem(where, "a step has either `before` or `after`", code="shape")
            rungs.append(
                compiled.Rung(
                    step.id or f"{clock.id}.{place}",
                    step.clause or clock.clause,
                    where,
                    self.expr(step.when, f"{where}/when"),
                    self.amount(step.before, f"{where}/before"),
                    self.amount(step.after, f"{where}/after"),
                    self._do(step.do, f"{where}/do"),
                )
            )
            self.covers(step.clause, f"clocks.{clock.id}.steps.{place}")
        inside = [clock.inside] if isinstance(clock.inside, str) else clock.inside or []
        for other in (*clock.supersedes, *inside):
            if other not in self.clock_ids:
                self.problem(
                    path, f"there is no clock {other}", code="unknown-rule", suggestion=near_miss(other, self.clock_ids)
                )
        name = clock.calendar or self.section.default
        if self.calendar is not None:
            name = self.section.default
        elif name not in self.section.calendars:
            self.problem(
                f"{path}/calendar",
                f"there is no calendar {name}",
                code="unknown-name",
                suggestion=near_miss(name, self.section.calendars),
            )
        repeat = clock.repeat
        always = cases[0][1] if len(cases) == 1 and cases[0][0] is None and repeat is None else None
        return compiled.ClockRule(
            clock.id,
            clock.clause,
            path,
            self.expr(clock.when, f"{path}/when"),
            cases=tuple(cases),
            while_=self.expr(clock.while_, f"{path}/while"),
            anchor="received"
            if clock.anchor == "received"
            else None
            if clock.anchor == "start"  # what goes without saying
            else self.val(clock.anchor, f"{path}/anchor", INSTANT),
            reanchor=clock.reanchor,
            again=clock.again,
            supersedes=tuple(clock.supersedes),
            stop_all=tuple(key for key, _ in self.triggers(clock.stop, f"{path}/stop"))
            if clock.stop_needs == "all"
            else (),
            repeat_every=None if repeat is None else self.amount(repeat.every, f"{path}/repeat/every"),
            repeat_count=None if repeat is None else repeat.count,
            repeat_after_closing=repeat is not None and repeat.after_closing,
            timer=clock.kind == "timer",
            inside=tuple(inside),
            inside_do=self._do(clock.inside_do, f"{path}/inside_do"),
            rungs=tuple(rungs),
            owner=self.vals(clock.owner, f"{path}/owner"),
            calendar=name,
            counting=self._counting(clock.clause, clock.counting),
            overdue_unit=clock.overdue_unit,
            name=clock.name,
            data=self.data(clock.data, f"{path}/data"),
            pauses=tuple(compiled.PauseRule(pause.count) for pause in clock.pauses),
            fixed=always if isinstance(always, Amount) else None,
        )

    def _limit(self, value: Any, path: str) -> Any:
        if isinstance(value, str) and value.startswith("="):
            return self.val(value, path)
        return self.amount(value, path)

    def _clocks(
        self,
    ) -> tuple[dict[str, compiled.ClockRule], tuple[compiled.ClockRule, ...], dict[str, tuple[str, ...]]]:
        found: dict[str, compiled.ClockRule] = {}
        stops: dict[str, tuple[str, ...]] = {}
        for place, clock in enumerate(self.policy.clocks):
            path = f"/clocks/{place}"
            made = found[clock.id] = self._clock_rule(clock, path)
            self.covers(clock.clause, f"clocks.{clock.id}")
            for key, condition in self.triggers(clock.start, f"{path}/start"):
                self.handlers(key).starts += ((condition, made),)
            stopping = self.triggers(clock.stop, f"{path}/stop")
            stops[clock.id] = tuple(key for key, _ in stopping)
            for key, condition in stopping:
                self.handlers(key).stops += ((condition, made),)
            for key, condition in self.triggers(clock.cancel, f"{path}/cancel"):
                self.handlers(key).cancels += ((condition, made),)
            for number, pause in enumerate(clock.pauses):
                for key, condition in self.triggers(pause.from_, f"{path}/pauses/{number}/from"):
                    self.handlers(key).pauses += ((condition, made, made.pauses[number]),)
                for key, condition in self.triggers(pause.to, f"{path}/pauses/{number}/to"):
                    self.handlers(key).resumes += ((condition, made, made.pauses[number]),)
        return found, tuple(rule for rule in found.values() if rule.while_ is not None), stops

    def _duties(self) -> tuple[compiled.DutyRule, ...]:
        found = []
        for place, duty in enumerate(self.policy.duties):
            path = f"/duties/{place}"
            clock = self._clock_rule(
                schema.Clock(
                    id=duty.id,
                    start=[],
                    owner=duty.owner,
                    calendar=duty.calendar,
                    clause=duty.clause,
                    title=duty.title,
                    steps=[schema.Step(after="0h", do=duty.missed)] if duty.missed else [],
                ),
                path,
            )
            self.covers(duty.clause, f"duties.{duty.id}")
            for key, condition in self.triggers(duty.proof, f"{path}/proof"):
                self.handlers(key).stops += ((condition, clock),)
            found.append(
                compiled.DutyRule(
                    clock,
                    TURNS.get(duty.every, duty.every),
                    self.amount(duty.due, f"{path}/due"),
                    tuple((one.window, one.covers) for one in duty.windows),
                    tuple(duty.per),
                    self._do(duty.do, f"{path}/do"),
                    self._do(duty.missed, f"{path}/missed"),
                )
            )
        return tuple(found)

    def _actions(self) -> None:
        for place, action in enumerate(self.policy.actions):
            path = f"/actions/{place}"
            after = action.after
            made = compiled.ActionRule(
                action.id,
                action.clause,
                path,
                self.expr(action.when, f"{path}/when"),
                self._do(action.do, f"{path}/do"),
                None if after is None else self._limit(after, f"{path}/after"),
                action.once,
                action.state,
            )
            self.covers(action.clause, f"actions.{action.id}")
            for key, condition in self.triggers(action.on, f"{path}/on"):
                self.handlers(key).actions += ((condition, made),)
            for key, condition in self.triggers(action.unless, f"{path}/unless"):
                self.handlers(key).unless += ((condition, made),)

    def _subjects(self) -> dict[str, compiled.SubjectRule]:
        found = {}
        for place, subject in enumerate(self.policy.subjects):
            path = f"/subjects/{place}"
            threshold = subject.threshold
            triggers = self.triggers(subject.on, f"{path}/on")
            made = found[subject.id] = compiled.SubjectRule(
                subject.id,
                subject.clause,
                path,
                self.expr(subject.when, f"{path}/when"),
                subject=self.vals(subject.subject, f"{path}/subject"),
                add=self._addend(subject.add, f"{path}/add"),
                window=f"opened:{subject.window}"
                if subject.opened_by_first
                else subject.window.removesuffix("_rolling"),
                more_than=None if threshold is None else threshold.more_than,
                at_least=None if threshold is None else threshold.at_least,
                fire="every_time" if threshold is None else threshold.fire,
                data=self.data(subject.data, f"{path}/data"),
                show=subject.show,
                once_per_case=subject.once_per_case,
                history=self.expr(subject.history, f"{path}/history"),
                triggers=tuple(triggers),
            )
            if not WINDOW.fullmatch(subject.window):
                self.problem(
                    f"{path}/window",
                    f"{subject.window} is no window: ever, calendar_month, quarter, half, year, 12mo, 30d",
                    code="window",
                )
            if threshold is not None and (threshold.more_than is None) == (threshold.at_least is None):
                self.problem(f"{path}/threshold", "a threshold has either more_than or at_least", code="shape")
            self.covers(subject.clause, f"subjects.{subject.id}")
            for key, condition in triggers:
                self.handlers(key).subjects += ((condition, made),)
        return found

    def _addend(self, value: Any, path: str) -> Any:
        """What is counted: a number, or money in whole minor units."""
        if not (isinstance(value, str) and value.startswith("=")):
            return value
        try:
            program = compile_value(value, self.env, DYN)
        except ExpressionError:
            return self.val(value, path)  # which says what is wrong with it
        self._program(program, path)
        return program.run

    def _imposed(self, item: schema.Imposed, path: str) -> compiled.Imposed:
        ways = [
            name
            for name in ("amount", "percent", "percent_range", "tiers", "accrual", "factor", "points", "sanction")
            if getattr(item, name) not in (None, [])
        ]
        if item.at_least is not None or item.at_most is not None:
            ways.append("at_least")
        if item.decided:
            ways.append("decided")
        if len(ways) > 1 or (not ways and item.of is None):
            told = "exactly one way of fixing the amount is needed" + (f", not {' and '.join(ways)}" if ways else "")
            self.problem(path, told, code="penalty-amount")
        if (item.kind == "sanction") != (item.sanction is not None):
            self.problem(path, "the kind sanction and the key sanction go together", code="penalty-amount")
        if (item.kind == "points") != (item.points is not None):
            self.problem(path, "the kind points and the key points go together", code="penalty-amount")
        sanctions = self.policy.vocabulary.sanctions
        if isinstance(item.sanction, str) and not item.sanction.startswith("=") and item.sanction not in sanctions:
            self.problem(
                f"{path}/sanction",
                f"there is no sanction {item.sanction}",
                code="unknown-name",
                suggestion=near_miss(item.sanction, sanctions),
            )
        for name in ("percent", "percent_range", "tiers", "factor"):
            if getattr(item, name) not in (None, []) and item.of is None:
                self.problem(path, f"{name} needs `of`: what it is taken of", code="penalty-amount")
        accrual = None
        if item.accrual is not None:
            given = item.accrual
            unit = {"working_day": "wd", "calendar_day": "cd", None: None}.get(given.unit, given.unit)
            first = self.money(given.first, f"{path}/accrual/first") or 0
            per_day = self.money(given.per_day, f"{path}/accrual/per_day") or 0
            accrual = compiled.Accrual(
                first=first,
                per_day=per_day,
                start=given.start,
                unit=unit,
                cap=self.money(given.cap, f"{path}/accrual/cap"),
                first_step=Step(label="first", value=format_minor(first, self.policy.currency)),
                per_day_text=format_minor(per_day, self.policy.currency),
            )
        low, high = self.money(item.at_least, f"{path}/at_least"), self.money(item.at_most, f"{path}/at_most")
        if low is not None and high is not None and low > high:
            self.problem(path, "at_least is more than at_most", code="penalty-range")
        amount = self._money_value(item.amount, f"{path}/amount")
        fixed = None
        if (
            isinstance(amount, int)
            and len(ways) == 1
            and not (item.multiply or item.cap or item.instalments or item.of)
        ):
            fixed = compiled.Fixed(amount, (Step(label="fixed", value=format_minor(amount, self.policy.currency)),))
        return compiled.Imposed(
            kind=item.kind,
            amount=amount,
            at_least=low,
            at_most=high,
            decided=item.decided,
            percent=self.val(item.percent, f"{path}/percent"),
            percent_range=None if item.percent_range is None else (item.percent_range[0], item.percent_range[1]),
            tiers=tuple((self.money(tier.to, f"{path}/tiers"), tier.percent) for tier in item.tiers),
            used=self.val(item.used, f"{path}/used"),
            of=self._money_value(item.of, f"{path}/of"),
            accrual=accrual,
            factor=self.val(item.factor, f"{path}/factor"),
            points=self.val(item.points, f"{path}/points"),
            sanction=self.val(item.sanction, f"{path}/sanction"),
            number=self.val(item.number, f"{path}/number"),
            multiply=tuple(
                (
                    self.expr(one.when, f"{path}/multiply/{place}/when"),
                    self.val(one.by, f"{path}/multiply/{place}/by"),
                    one.clause,
                )
                for place, one in enumerate(item.multiply)
            ),
            instalments=None
            if item.instalments is None
            else (self.val(item.instalments.count, f"{path}/instalments/count"), item.instalments.first),
            cap=self._money_value(item.cap, f"{path}/cap"),
            when=self.expr(item.when, f"{path}/when"),
            data=self.data(item.data, f"{path}/data"),
            fixed=fixed,
        )

    def _money_value(self, value: Any, path: str) -> Any:
        """An amount in minor units, or a function of the scope that gives one."""
        if value is None:
            return None
        if isinstance(value, str) and value.startswith("="):
            return self.val(value, path, MONEY)
        return self.money(value, path)

    def _penalties(self) -> tuple[compiled.PenaltyRule, ...]:
        found = []
        for place, rule in enumerate(self.policy.penalties.rules):
            path = f"/penalties/rules/{place}"
            triggers = self.triggers(rule.on, f"{path}/on")
            made = compiled.PenaltyRule(
                rule.id,
                rule.clause,
                path,
                self.expr(rule.when, f"{path}/when"),
                party=self.vals(rule.party, f"{path}/party"),
                impose=tuple(self._imposed(item, f"{path}/impose/{number}") for number, item in enumerate(rule.impose)),
                while_=self.expr(rule.while_, f"{path}/while"),
                decided_by=tuple(rule.decided_by),
                once_per=self.vals(rule.once_per, f"{path}/once_per"),
                stack=rule.stack,
                because=rule.because,
                appeal_clause=None if rule.appeal is None else rule.appeal.clause,
                appeal_by=() if rule.appeal is None else tuple(rule.appeal.decided_by),
                appeal_within=None if rule.appeal is None else self.amount(rule.appeal.within, f"{path}/appeal/within"),
                by_decision=any(key == "penalty_decided" for key, _ in triggers),
            )
            self._known_names((*rule.decided_by,), f"{path}/decided_by")
            if rule.stack is not None and rule.stack not in self.policy.penalties.stacks:
                self.problem(
                    f"{path}/stack",
                    f"there is no stack {rule.stack}",
                    code="unknown-name",
                    suggestion=near_miss(rule.stack, self.policy.penalties.stacks),
                )
            self.covers(rule.clause, f"penalties.{rule.id}")
            if rule.appeal is not None:
                self.covers(rule.appeal.clause, f"penalties.{rule.id}.appeal")
            for number, item in enumerate(rule.impose):
                for one in item.multiply:
                    self.covers(one.clause, f"penalties.{rule.id}.impose.{number}.multiply")
            for key, condition in triggers:
                self.handlers(key).penalties += ((condition, made),)
            found.append(made)
        return tuple(found)

    def _reports(self) -> tuple[compiled.ReportRule, ...]:
        found = []
        for place, row in enumerate(self.policy.reports):
            path = f"/reports/{place}"
            entries = [] if row.entries is None else self.triggers(row.entries, f"{path}/entries")
            found.append(
                compiled.ReportRule(
                    f"reports.{row.row}",
                    row.clause,
                    path,
                    None,
                    row=row.row,
                    value=row.value,
                    where=self.expr(row.where, f"{path}/where", self.fact_env),
                    done=self.val(row.done, f"{path}/done", env=self.fact_env)
                    if row.done is not None and row.done.startswith("=")
                    else self.expr(row.done, f"{path}/done", self.fact_env),
                    of=self.val(row.of, f"{path}/of", env=self.fact_env),
                    entries=tuple(key for key, _ in entries),
                    entries_when=tuple(condition for _, condition in entries),
                    period=row.period,
                    period_of=row.period_of,
                    first_month=row.first_month,
                    by=tuple(row.by),
                    subject=self.val(row.subject, f"{path}/subject", env=self.fact_env),
                    target=row.target,
                )
            )
            self.covers(row.clause, f"reports.{row.row}")
        return tuple(found)

    def _messages(self) -> tuple[compiled.MessageRule, ...]:
        found = []
        for place, rule in enumerate(self.policy.messages):
            path = f"/messages/{place}"
            found.append(
                compiled.MessageRule(
                    rule.id,
                    rule.clause,
                    path,
                    self.expr(rule.when, f"{path}/when"),
                    to=self.vals(rule.to, f"{path}/to"),
                    channel=tuple(rule.channel),
                    template=_texts(rule.template),
                    subject=_texts(rule.subject),
                    quiet_hours=rule.quiet_hours,
                    triggers=tuple(self.triggers(rule.on, f"{path}/on", told=True)),
                )
            )
            self.covers(rule.clause, f"messages.{rule.id}")
        return tuple(found)

    def _incomplete(self) -> tuple[tuple[Any, str, Mapping[str, Any]], ...]:
        found = []
        settings_only = Environment({"settings": self.env.variables["settings"]})
        for place, one in enumerate(self.policy.incomplete):
            self.covers(one.clause, f"incomplete.{place}")
            condition = self.expr(one.unless, f"/incomplete/{place}/unless", settings_only)
            if condition is None or condition(_Settings(self.values)) is not True:
                found.append((one.clause, one.problem, one.data))
        return tuple(found)


class _Settings:
    __slots__ = ("settings",)

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings


TURNS = {
    "1d": "day", "daily": "day", "1wd": "working_day", "1w": "week", "weekly": "week", "1mo": "month", "monthly": "month",
    "calendar_month": "month", "3mo": "quarter", "quarterly": "quarter", "6mo": "half", "half_yearly": "half",
    "12mo": "year", "1y": "year", "yearly": "year",
}  # fmt: skip
"""Other words for the turns of a duty."""

WINDOW = re.compile(r"ever|(?:calendar_)?(?:day|week|month|quarter|half|year)|\d+(?:d|w|mo|y|wd)(?:_rolling)?")


def compiled_states() -> tuple[str, ...]:
    """States that every regime has."""
    return (
        "received",
        "accepted",
        "declined",
        "assigned",
        "resolved",
        "closed",
        "reopened",
        "archived",
        "handed_over",
        "withdrawn",
        "merged",
    )


STATE_OF_KIND = {
    "accepted": "accepted",
    "declined": "declined",
    "assigned": "assigned",
    "resolved": "resolved",
    "closed": "closed",
    "reopened": "reopened",
    "archived": "archived",
    "withdrawn": "withdrawn",
    "handed_over": "handed_over",
}
ALWAYS_KNOWN = frozenset({"withdrawn", "handed_over"})


def _usual_states(policy: Policy) -> dict[str, str]:
    """Where a kind of entry leads without a rule, as far as the regime has such a state."""
    known = policy.vocabulary.states
    return {"merged": "merged"} | {
        kind: state for kind, state in STATE_OF_KIND.items() if not known or state in known or state in ALWAYS_KNOWN
    }


def _word_clauses(policy: Policy) -> dict[tuple[str, str], Any]:
    """The clauses that words of the class carry."""
    words = policy.vocabulary
    parts = (("kind", words.kinds), ("category", words.categories), ("severity", words.severities))
    return {
        (part, name): term.clause
        for part, terms in parts
        for name, term in terms.items()
        if isinstance(term, schema.Term) and term.clause is not None
    }


def _prefixed(head: str, hint: str | None) -> str | None:
    return None if hint is None else f"{head}:{hint}"


def _texts(text: schema.Text) -> dict[str, str]:
    return {"en": text} if isinstance(text, str) else dict(text)


def digest(document: Mapping[str, Any]) -> str:
    """What tells two documents apart, whatever their spelling."""
    return hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()


__all__ = ["Compiler", "compile_policy", "decode_policy", "digest"]
