"""A policy in plain sentences, English and Chinese: what an administrator reads to see what the document says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from shared.engine.amounts import describe as describe_amount
from shared.engine.amounts import parse_amount
from shared.engine.rules import CompiledPolicy, clauses_of
from shared.policy import schema
from shared.policy.cel import BOOL, DYN, Environment, ExpressionError, compile_expression
from shared.policy.cel.describe import describe as describe_condition
from shared.policy.compiling import NULLABLE
from shared.policy.scope import variables
from shared.policy.words import CLOCK_PARTS, EFFECTS, KINDS, PARTS, PATHS, PENALTIES, Language, word


class Sentence(Struct, frozen=True, kw_only=True):
    """One rule in words."""

    section: str
    rule: str
    clause: tuple[str, ...]
    text: str


HEADINGS: dict[str, tuple[str, str]] = {
    "intake": ("Taking complaints", "受理"),
    "classification": ("Classes", "分类"),
    "routing": ("Who acts", "分派"),
    "workflow": ("States and gates", "状态与限制"),
    "clocks": ("Deadlines", "期限"),
    "actions": ("What the system does", "系统动作"),
    "subjects": ("Counters", "计数"),
    "penalties": ("Penalties", "处罚"),
    "duties": ("Recurring duties", "定期职责"),
    "messages": ("Messages", "通知"),
    "reports": ("Reports", "报表"),
    "guidance": ("Guidance", "指引"),
    "by_design_not": ("Left out on purpose", "有意不实现"),
    "incomplete": ("Incomplete in the written text", "原文不完整"),
}


def describe(policy: CompiledPolicy, lang: Language = "en") -> list[Sentence]:
    """Every rule of the policy as a sentence, in the order of the sections."""
    return Teller(policy, lang).sentences()


def heading(section: str, lang: Language) -> str:
    return word(HEADINGS, section, lang)


class Teller:
    """Puts one policy into one language."""

    def __init__(self, policy: CompiledPolicy, lang: Language) -> None:
        self.document: schema.Policy = policy.document
        self.lang = lang
        self.env = Environment(variables(self.document), currency=self.document.currency, optional=NULLABLE)
        self.found: list[Sentence] = []
        words = self.document.vocabulary
        self.labels: dict[str, Any] = {
            **self.document.organisation.units,
            **self.document.organisation.roles,
            **words.steps,
            **words.sanctions,
            **words.tasks,
            **words.severities,
            **words.categories,
            **words.kinds,
            **words.states,
        }
        self.titles: dict[str, Any] = {
            one.id: one.title
            for one in (
                *self.document.clocks,
                *self.document.actions,
                *self.document.subjects,
                *self.document.penalties.rules,
                *self.document.duties,
            )
        }

    def say(self, english: str, chinese: str) -> str:
        return english if self.lang == "en" else chinese

    # -- words -----------------------------------------------------------------------------------------------------------

    def label(self, name: Any) -> str:
        """What the tenant calls a name; several are joined."""
        if isinstance(name, list | tuple):
            return self.say(", ", "、").join(self.label(one) for one in name)
        if isinstance(name, str) and name.startswith("="):
            return self.expression(name[1:], DYN)
        found = self.labels.get(str(name))
        if found is None or isinstance(found, str):
            return word(PARTS, str(name), self.lang)
        return self.text(found.label) or str(name).replace("_", " ")

    def title(self, name: str) -> str:
        return self.text(self.titles.get(name, "")) or name.replace("_", " ")

    def text(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return str(value.get(self.lang) or value.get("en") or next(iter(value.values()), ""))
        return str(value or "")

    def expression(self, text: str, want: Any = BOOL) -> str:
        try:
            program = compile_expression(text, self.env, want)
            return describe_condition(program, self.lang, self._word_of)
        except (ExpressionError, ValueError, KeyError):
            return text

    def _word_of(self, path: str) -> str | None:
        name, _, value = path.partition("=")
        if value and name == "seen":
            return self.say(f"“{self._trigger(value)}”", f"“{self._trigger(value)}”")
        if value:
            found = self.labels.get(value)
            return None if found is None or isinstance(found, str) else self.text(found.label) or None
        field = self.document.vocabulary.fields.get(path.removeprefix("fields."))
        if field is not None:
            return self.text(field.label) or None
        parts = path.split(".")
        if len(parts) == 3 and parts[0] == "clocks":
            title, part = self.title(parts[1]), word(CLOCK_PARTS, parts[2], self.lang)
            return self.say(f"{part} of “{title}”", f"“{title}”的{part}")
        known = PATHS.get(path)
        return None if known is None else self.say(*known)

    def condition(self, text: str | None, *, lead: tuple[str, str] = (", if {0}", "，条件是{0}")) -> str:
        return "" if text is None else self.say(*lead).format(self.expression(text))

    def when(self, given: Any) -> str:
        """Triggers in words."""
        listed = given if isinstance(given, list) else [given]
        told = []
        for one in listed:
            key = one.on if isinstance(one, schema.Trigger) else one
            extra = self.condition(one.when, lead=(" and {0}", "且{0}")) if isinstance(one, schema.Trigger) else ""
            told.append(self._trigger(key) + extra)
        return self.say(" or ", "或").join(told)

    def _trigger(self, key: str) -> str:
        head, colon, name = key.partition(":")
        if not colon:
            return word(KINDS, head, self.lang)
        if head == "step":
            return self.say(f"“{self.label(name)}” is done", f"完成“{self.label(name)}”")
        if head in KINDS:
            return self.say(
                f"{word(KINDS, head, 'en')} (“{self.label(name)}”)", f"{word(KINDS, head, 'zh')}（{self.label(name)}）"
            )
        shown = self.label(name) if head in ("state", "class", "decision") else self.title(name)
        shown = word(EFFECTS, name, self.lang) if head == "effect" else shown
        forms: dict[str, tuple[str, str]] = {
            "breach": ("“{0}” is missed", "“{0}”逾期"),
            "fired": ("“{0}” runs out", "“{0}”到期"),
            "met": ("“{0}” is met", "“{0}”按时完成"),
            "late": ("“{0}” is done late", "“{0}”逾期后完成"),
            "started": ("“{0}” starts", "“{0}”开始"),
            "count": ("the counter “{0}” is reached", "“{0}”达到次数"),
            "penalty": ("“{0}” is fixed", "“{0}”确定"),
            "imposed": ("“{0}” comes about", "“{0}”产生"),
            "state": ("it enters the state “{0}”", "进入状态“{0}”"),
            "class": ("the {0} is set or changes", "{0}设定或变更"),
            "decision": ("it counts as {0}", "视为{0}"),
            "action": ("“{0}” has been done", "“{0}”已执行"),
            "effect": ("the system acts ({0})", "系统{0}"),
        }
        return self.say(*forms[head]).format(shown) if head in forms else key

    def amount(self, value: Any) -> str:
        if value is None:
            return self.say("otherwise measured only", "否则仅计时")
        if isinstance(value, str) and value.startswith("="):
            return self.say("by ", "至") + self.expression(value[1:], DYN)
        try:
            return self.say("within ", "期限 ") + describe_amount(parse_amount(value), self.lang)
        except ValueError:
            return str(value)

    def _later(self, value: Any) -> str:
        """How long after what sets it off something is done."""
        if isinstance(value, str) and value.startswith("="):
            return self.say("at ", "于") + self.expression(value[1:], DYN)
        try:
            far = describe_amount(parse_amount(value), self.lang)
        except ValueError:
            return str(value)
        return self.say(f"{far} later", f"{far}后")

    def do(self, todo: Iterable[schema.Do]) -> str:
        parts = []
        for one in todo:
            part = word(EFFECTS, one.kind, self.lang)
            part += f" {self.label(one.to)}" if one.to is not None else ""
            part += (
                self.say(f" (“{self.label(one.what)}”)", f"（{self.label(one.what)}）") if one.what is not None else ""
            )
            parts.append(part)
        return self.say(", ", "；").join(parts)

    def add(self, section: str, rule: str, clause: Any, text: str) -> None:
        text = text.strip()
        text = text[:1].upper() + text[1:] + self.say(".", "。") if text else text
        self.found.append(Sentence(section=section, rule=rule, clause=clauses_of(clause), text=text))

    # -- sections --------------------------------------------------------------------------------------------------------

    def sentences(self) -> list[Sentence]:
        for tell in (
            self._intake,
            self._classes,
            self._routes,
            self._workflow,
            self._clocks,
            self._actions,
            self._subjects,
            self._penalties,
            self._rest,
        ):
            tell()
        return self.found

    def _intake(self) -> None:
        intake = self.document.intake
        for name, channel in intake.channels.items():
            clause = None if isinstance(channel, str) else channel.clause
            meaning = channel if isinstance(channel, str) else self.text(channel.meaning)
            label = "" if isinstance(channel, str) else self.text(channel.label)
            label = label or name.replace("_", " ")
            told = self.say(f"complaints come in by {label}", f"投诉渠道：{label}")
            self.add("intake", name, clause, told + (f" ({meaning})" if meaning else ""))
        how = {
            "at_receipt": ("a complaint is accepted when it is received", "收到即受理"),
            "by_entry": ("a person decides whether a complaint is accepted", "由人决定是否受理"),
        }
        self.add(
            "intake",
            "acceptance",
            intake.clause,
            self.say(*how[intake.acceptance]) + self.condition(intake.accept_when),
        )
        for place, rule in enumerate(intake.acceptance_rules):
            reason = self.label(rule.reason) if rule.reason is not None else ""
            told = (
                self.say("it is accepted", "予以受理")
                if rule.accepted
                else self.say(f"it is declined ({reason})", f"不予受理（{reason}）")
            )
            at = "" if rule.on is None else self.say(" when ", "：当") + self.when(rule.on)
            self.add("intake", f"acceptance_rules.{place}", rule.clause, told + at + self.condition(rule.when))
        for required in intake.required:
            fields = self.label(required.fields)
            before = self.when(required.before)
            told = self.say(f"before {before}, these must be given: {fields}", f"{before}前须提供：{fields}")
            self.add("intake", "required", required.clause, told + self.condition(required.when))
        numbering = intake.numbering
        told = self.say(f"complaints are numbered {numbering.pattern}", f"编号规则 {numbering.pattern}")
        self.add("intake", "numbering", numbering.clause, told)

    def _classes(self) -> None:
        for place, rule in enumerate(self.document.classification):
            what = self.say(" and ", "，").join(
                self.say(f"the {part} is {self.label(value)}", f"{part} 为 {self.label(value)}")
                for part, value in rule.set.items()
            )
            at = "" if rule.on is None else self.say(" when ", "：当") + self.when(rule.on)
            self.add("classification", rule.id or str(place), rule.clause, what + at + self.condition(rule.when))

    def _routes(self) -> None:
        for place, rule in enumerate(self.document.routing):
            who = self.label([one for one in (rule.unit, rule.role, rule.staff) if one is not None])
            part = f" ({self.label(rule.as_)})" if rule.as_ is not None else ""
            told = self.say(
                f"when {self.when(rule.on)}, {who}{part} acts", f"{self.when(rule.on)}时，由 {who}{part} 负责"
            )
            self.add("routing", rule.id or str(place), rule.clause, told + self.condition(rule.when))

    def _workflow(self) -> None:
        for state in self.document.workflow.states:
            on, name = self.when(state.on), self.label(state.state)
            told = self.say(f"when {on}, the state becomes “{name}”", f"{on}时，状态变为“{name}”")
            self.add("workflow", state.state, state.clause, told + self.condition(state.when))
        for place, gate in enumerate(self.document.workflow.gates):
            by = (
                ""
                if gate.by is None
                else self.say(f" by anyone but {self.label(gate.by)}", f"（{self.label(gate.by)}除外）")
            )
            reason = self.label(gate.reason)
            told = self.say(
                f"refused{by}: {self.when(gate.on)} ({reason})", f"不允许{by}：{self.when(gate.on)}（{reason}）"
            )
            self.add("workflow", gate.id or f"gates.{place}", gate.clause, told + self.condition(gate.when))

    def _clocks(self) -> None:
        for clock in self.document.clocks:
            start, name = self.when(clock.start), self.title(clock.id)
            told = self.say(f"“{name}”: from when {start}", f"“{name}”：自{start}起")
            if clock.stop:
                stop = self.when(clock.stop)
                joined = stop.replace(" or ", " and ").replace("或", "并") if clock.stop_needs == "all" else stop
                told += self.say(f" until {joined}", f"，至{joined}止")
            if isinstance(clock.within, list):
                for case in clock.within:
                    told += self.say("; ", "；") + self.amount(case.get("is")) + self.condition(case.get("when"))
            elif clock.within is not None:
                told += self.say(", ", "，") + self.amount(clock.within)
            elif clock.repeat is None:
                told += self.say(", measured only", "，仅计时")
            if clock.repeat is not None:
                every = describe_amount(parse_amount(clock.repeat.every), self.lang)
                times = (
                    ""
                    if clock.repeat.count is None
                    else self.say(f", {clock.repeat.count} times", f"，共 {clock.repeat.count} 次")
                )
                told += self.say(f", every {every}{times}", f"，每 {every} 一次{times}")
            told += self.condition(clock.when)
            told += self.condition(clock.while_, lead=(", as long as {0}", "，仅当{0}"))
            for pause in clock.pauses:
                told += self.say(
                    f"; it rests from when {self.when(pause.from_)} until {self.when(pause.to)}",
                    f"；{self.when(pause.from_)}至{self.when(pause.to)}期间暂停",
                )
            for step in clock.steps:
                side = step.before or step.after or "0h"
                far = describe_amount(parse_amount(side), self.lang)
                at = (
                    self.say(f"{far} before the end", f"到期前 {far}")
                    if step.before
                    else self.say(f"{far} after the end", f"到期后 {far}")
                )
                at = self.say("when it is missed", "逾期时") if side in ("0h", "0d") else at
                told += self.say(f"; {at}: {self.do(step.do)}", f"；{at}：{self.do(step.do)}")
            self.add("clocks", clock.id, clock.clause, told)

    def _actions(self) -> None:
        for action in self.document.actions:
            on, what = self.when(action.on), self.do(action.do)
            told = self.say(f"when {on}: {what}", f"{on}时：{what}")
            if action.after is not None:
                told += self.say(", ", "，") + self._later(action.after)
            if action.unless:
                told += self.say(
                    f", unless before that {self.when(action.unless)}", f"，除非此前{self.when(action.unless)}"
                )
            if action.state is not None:
                told += self.say(
                    f"; the state becomes “{self.label(action.state)}”", f"；状态变为“{self.label(action.state)}”"
                )
            self.add("actions", action.id, action.clause, told + self.condition(action.when))

    def _subjects(self) -> None:
        for subject in self.document.subjects:
            on, whom, name = self.when(subject.on), self.label(subject.subject), self.title(subject.id)
            window = subject.window.replace("_", " ")
            told = self.say(
                f"“{name}” counts for {whom} when {on}, per {window}", f"“{name}”：{on}时为 {whom} 计数，窗口 {window}"
            )
            if subject.threshold is not None:
                limit = subject.threshold
                reach = (
                    self.say(f"more than {limit.more_than}", f"超过 {limit.more_than} 次")
                    if limit.more_than is not None
                    else self.say(f"at least {limit.at_least}", f"达到 {limit.at_least} 次")
                )
                told += self.say(f"; it fires at {reach}", f"；{reach}时触发")
            self.add("subjects", subject.id, subject.clause, told + self.condition(subject.when))

    def _penalties(self) -> None:
        currency = self.document.currency
        for rule in self.document.penalties.rules:
            what = self.say(", ", "、").join(self._imposed(item, currency) for item in rule.impose)
            told = self.say(
                f"when {self.when(rule.on)}, {self.label(rule.party)}: {what}",
                f"{self.when(rule.on)}时，{self.label(rule.party)}：{what}",
            )
            told += self.condition(rule.when)
            told += self.condition(rule.while_, lead=(", as long as {0}", "，仅当{0}"))
            if rule.decided_by:
                by = self.label(rule.decided_by)
                told += self.say(f"; decided by {by}", f"；由{by}裁定")
            if rule.appeal is not None:
                told += self._appeal(rule.appeal)
            self.add("penalties", rule.id, rule.clause, told)
        for place, excluded in enumerate(self.document.penalties.excluded):
            named = self.say(", ", "、").join(f"“{self.title(one)}”" for one in excluded.rules)
            what = self.say(f" of {named}", f"（{named}）") if named else ""
            told = self.say(f"nothing{what} is imposed", f"不予处罚{what}") + self.condition(excluded.when)
            self.add("penalties", f"excluded.{place}", excluded.clause, told)

    def _appeal(self, appeal: schema.Appeal) -> str:
        """Who hears an appeal, and how long one is possible."""
        told = self.say("; an appeal is possible", "；可以申诉")
        if appeal.within is not None:
            told += " " + self.amount(appeal.within) if self.lang == "en" else f"（{self.amount(appeal.within)}）"
        if appeal.decided_by:
            by = self.label(appeal.decided_by)
            told += self.say(f", decided by {by}", f"，由{by}裁决")
        return told

    def _imposed(self, item: schema.Imposed, currency: str) -> str:
        kind = word(PENALTIES, item.kind, self.lang)
        if item.sanction is not None:
            return self.label(item.sanction)
        if item.points is not None:
            return f"{kind} {self.label(item.points)}"
        of = "" if item.of is None else self.say(f" of {self.label(item.of)}", f"，以{self.label(item.of)}为基数")
        if item.amount is not None:
            return f"{kind} {self.label(item.amount)} {currency}"
        if item.at_least is not None or item.at_most is not None:
            low, high = item.at_least or "0", item.at_most or self.say("without limit", "不设上限")
            return self.say(
                f"{kind} from {low} to {high} {currency}, decided by a person",
                f"{kind} {low} 至 {high} {currency}，由人裁定",
            )
        if item.percent_range is not None:
            ends = " – ".join(item.percent_range)
            return self.say(f"{kind} of {ends} %{of}, decided by a person", f"{kind} {ends}%{of}，由人裁定")
        if item.percent is not None:
            return f"{kind} {self.label(item.percent)} %{of}"
        if item.tiers:
            tiers = self.say("; ", "；").join(
                self.say(f"{tier.percent} % up to {tier.to}", f"{tier.to} 以内 {tier.percent}%")
                if tier.to
                else self.say(f"{tier.percent} % above", f"以上部分 {tier.percent}%")
                for tier in item.tiers
            )
            return f"{kind} {tiers}{of}"
        if item.accrual is not None:
            first, day, cap = item.accrual.first, item.accrual.per_day, item.accrual.cap
            most = "" if cap is None else self.say(f", {cap} at most", f"，最多 {cap}")
            return self.say(
                f"{kind} {first} and {day} for each further day{most} {currency}",
                f"{kind} {first}，每逾期一天加 {day}{most} {currency}",
            )
        if item.factor is not None:
            return self.say(f"{kind} times {self.label(item.factor)}{of}", f"{kind}系数 {self.label(item.factor)}{of}")
        if item.decided:
            return self.say(f"{kind}, decided by a person", f"{kind}，由人裁定")
        return f"{kind}{of}"

    def _rest(self) -> None:
        for duty in self.document.duties:
            every = duty.every.replace("_", " ")
            told = self.say(f"“{self.title(duty.id)}”, every {every}", f"“{self.title(duty.id)}”，周期 {every}")
            if duty.due is not None:
                told += self.say(", due ", "，期限 ") + describe_amount(parse_amount(duty.due), self.lang)
            if duty.do:
                told += self.say(": ", "：") + self.do(duty.do)
            if duty.proof:
                told += self.say(f"; done when {self.when(duty.proof)}", f"；以{self.when(duty.proof)}为完成")
            if duty.missed:
                told += self.say(f"; when it is missed: {self.do(duty.missed)}", f"；逾期时：{self.do(duty.missed)}")
            self.add("duties", duty.id, duty.clause, told)
        for message in self.document.messages:
            told = self.say(
                f"when {self.when(message.on)}, tell {self.label(message.to)} by {', '.join(message.channel)}",
                f"{self.when(message.on)}时，以 {'、'.join(message.channel)} 通知 {self.label(message.to)}",
            )
            self.add("messages", message.id, message.clause, told + self.condition(message.when))
        for row in self.document.reports:
            told = self.say(
                f"{self.label(row.row)} per {row.period} ({row.value})",
                f"按{row.period}统计 {self.label(row.row)}（{row.value}）",
            )
            self.add("reports", row.row, row.clause, told)
        for place, guidance in enumerate(self.document.guidance):
            self.add("guidance", str(place), guidance.clause, self.text(guidance.text).rstrip(".。"))
        for place, left_out in enumerate(self.document.by_design_not):
            self.add("by_design_not", str(place), left_out.clause, self.text(left_out.reason).rstrip(".。"))
        for place, incomplete in enumerate(self.document.incomplete):
            problem = incomplete.problem.replace("_", " ")
            self.add(
                "incomplete", str(place), incomplete.clause, f"{problem}: {self.text(incomplete.text)}".rstrip(".。: ")
            )
