"""`recourse policy …`: check a policy, read it in plain words, try it on cases, compare, and publish it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cyclopts import App, Parameter

from services.cli.client import Access, ask
from services.cli.output import NOT_WELL, CommandError, note, say, say_json, table

app = App(name="policy", help="Policies: check, try, publish.")
Json = Annotated[bool, Parameter(name="--json", help="Print one JSON document.")]
Language = Literal["en", "zh"]
Choices = Annotated[
    list[str] | None,
    Parameter(name="--set", help="A choice that the policy leaves open, as ID=VALUE; may be given again.", negative=""),
]


def _text(file: str) -> str | bytes:
    """A policy by path, or a template by its regime (R04) or name (r04_window)."""
    from shared.policy.template_files import names, text_of

    path = Path(file)
    if path.is_file():
        return path.read_bytes()
    known = {name: regime for regime, name in names().items()} | {regime: regime for regime in names()}
    if file not in known:
        raise CommandError(f"There is no file {file}, and no template of that name.")
    return text_of(known[file])


def _document(file: str) -> Any:
    from shared.policy.documents import DocumentError, parse

    try:
        return parse(_text(file))
    except DocumentError as error:
        place = file if error.mark is None else f"{file}:{error.mark.line}:{error.mark.column}"
        where = f"{error.pointer}: " if error.pointer else ""
        raise CommandError(f"{place}: error: {where}{error.message}", NOT_WELL) from None


def _settings(given: list[str] | None) -> dict[str, Any]:
    """Settings by their ids; a value is read as in the document: true, false, null, a whole number, else a text."""
    from shared.policy.documents import DocumentError, parse

    found: dict[str, Any] = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not equals:
            raise CommandError(f"A choice is written ID=VALUE, not {one}.", 2)
        try:
            found[name] = parse(f"value: {value}").values["value"]
        except DocumentError as error:
            raise CommandError(f"{one}: {error.message}", 2) from None
    return found


def _compiled(file: str, settings: list[str] | None = None) -> Any:
    from shared.policy.compiling import compile_policy
    from shared.policy.problems import PolicyError

    try:
        return compile_policy(_document(file), _settings(settings))
    except PolicyError as error:
        raise _unfit(file, error.problems) from None


def _unfit(file: str, problems: list[Any]) -> CommandError:
    first = problems[0]
    more = f" (and {len(problems) - 1} more: see `recourse policy lint`)" if len(problems) > 1 else ""
    return CommandError(f"{file}: {first.path}: {first.message}{more}", NOT_WELL)


@app.command
def lint(file: str, *, choices: Choices = None, json: Json = False) -> int:
    """Say everything that can never work or was probably not meant, each with its place and a suggestion."""
    from shared.policy.linting import lint as run

    found = run(_text(file), _settings(choices))
    if json:
        say_json({"ok": not found.errors, "problems": found.problems})
    else:
        for one in found.problems:
            place = f"{file}:{one.line}:{one.column}" if one.line is not None else file
            hint = f". Did you mean {one.suggestion}?" if one.suggestion else ""
            where = f"{one.path}: " if one.path else ""
            say(f"{place}: {one.severity}: {where}{one.message}{hint}")
        say(f"{_number(found.errors, 'error')}, {_number(found.warnings, 'warning')}")
    return NOT_WELL if found.errors else 0


def _number(found: list[Any], what: str) -> str:
    return f"{len(found)} {what}" + ("" if len(found) == 1 else "s")


@app.command
def schema() -> None:
    """Print the JSON Schema of policies, for editors."""
    from shared.policy.json_schema import json_schema

    say_json(json_schema())


@app.command
def explain(file: str, *, lang: Language = "en", choices: Choices = None, json: Json = False) -> None:
    """Tell the document in plain sentences."""
    from shared.policy.describing import describe, heading

    sentences = describe(_compiled(file, choices), lang)
    if json:
        say_json(sentences)
        return
    section = None
    for one in sentences:
        if one.section != section:
            section = one.section
            say(f"\n{heading(section, lang)}")
        clause = f" [{', '.join(one.clause)}]" if one.clause else ""
        say(f"  {one.text}{clause}")


@app.command
def simulate(scenario: Path, *, policy: str | None = None, lang: Language = "en", json: Json = False) -> int:
    """Run one scenario and print everything that follows from it; exit 1 where it differs from what it expects.

    Parameters
    ----------
    scenario
        The scenario's file.
    policy
        A policy's file or a template; by default the template of the scenario's regime.
    """
    from shared.engine.case import LoopError
    from shared.policy.checking import simulation
    from shared.policy.documents import DocumentError
    from shared.policy.problems import PolicyError

    if not scenario.is_file():
        raise CommandError(f"There is no file {scenario}.")
    document = None if policy is None else _document(policy)
    try:
        result = simulation(scenario, document, lang)
    except PolicyError as error:
        raise _unfit(policy or f"{scenario}: its policy", error.problems) from None
    except DocumentError as error:
        place = scenario if error.mark is None else f"{scenario}:{error.mark.line}:{error.mark.column}"
        raise CommandError(f"{place}: {error.message}", NOT_WELL) from None
    except KeyError as error:
        told = f"there is no template of the regime {error.args[0]}: name the policy with --policy"
        raise CommandError(f"{scenario}: {told}", NOT_WELL) from None
    except (ValueError, LoopError) as error:  # a scenario of another form
        raise CommandError(f"{scenario}: {error}", NOT_WELL) from None
    if json:
        say_json(result)
    else:
        _tell_simulation(result)
    return 0 if result["passed"] else NOT_WELL


# What a simulation tells beside the complaint's state, in this order.
LISTED = (
    "routing",
    "clocks",
    "effects",
    "penalties",
    "refused",
    "counters",
    "facts",
    "report",
    "policy_warnings",
    "problems",
)


def _tell_simulation(result: dict[str, Any]) -> None:
    say(f"{result['id']}: {result['title']}")
    say(f"state: {result['state']}")
    for name in ("acceptance", "classified"):
        if result[name]:
            say(f"{name}: {_item(result[name])}")
    for name in LISTED:
        if result[name]:
            say(f"\n{name}")
            for one in result[name]:
                say(f"  {_item(one)}")
    if result["explanations"]:
        say("\nwhy")
        for one in result["explanations"]:
            found = one["result"] if one["subject"] == "penalty" else _shown(datetime.fromisoformat(one["result"]))
            say(f"  {one['title']} ({_shown(one['clause'])}): {found}")
            for line in one["lines"]:
                say(f"    {line}")
    for one in result["differences"]:
        say(f"\ndiffers at {one['path']}\n  expected {_shown(one['expected'])}\n  got      {_shown(one['got'])}")


def _item(one: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_shown(value)}" for key, value in one.items() if _says(value))


def _says(value: Any) -> bool:
    return value not in (None, {}, [], "")


def _shown(value: Any) -> str:
    """A value for people: instants on the wall clock of scenarios, lists and mappings without their marks."""
    if isinstance(value, datetime):
        from shared.policy.simulating import ZONE

        return f"{value.astimezone(ZoneInfo(ZONE)):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "; ".join(f"{key} {_shown(inner)}" for key, inner in value.items() if _says(inner))
    if isinstance(value, list):
        return ", ".join(_shown(inner) for inner in value)
    return str(value)


@app.command(name="check-scenarios")
def check_scenarios(folder: Path, *, policy: str | None = None, json: Json = False) -> int:
    """Run every scenario of a folder; exit 1 on any difference, showing expected, got and why.

    Parameters
    ----------
    folder
        Files `*.yaml`, one scenario each.
    policy
        A policy's file used for all of them; by default the template of each scenario's regime.
    """
    from shared.policy.checking import check, explained

    if not folder.is_dir():
        raise CommandError(f"There is no folder {folder}.")
    document = None if policy is None else _document(policy)
    results = list(check(folder, document))
    if not results:
        raise CommandError(f"There are no scenarios (*.yaml) in {folder}.", NOT_WELL)
    failed = [one for one in results if not one.passed]
    if json:
        say_json({"passed": len(results) - len(failed), "failed": len(failed), "results": results})
        return NOT_WELL if failed else 0
    for one in failed:
        say(f"{one.id}: {one.title}")
        if one.error is not None:
            say(f"  {one.error}")
        for difference in one.differences:
            say(
                f"  {difference.path}\n    expected {_shown(difference.expected)}\n    got      {_shown(difference.got)}"
            )
        for line in explained(folder / f"{one.id}.yaml", document):
            say(f"    {line}")
    say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return NOT_WELL if failed else 0


@app.command
def coverage(*, json: Json = False) -> int:
    """Say which rules of the templates carry which clause, and what is missing."""
    from shared.policy.coverage import coverage as run

    found = run()
    if json:
        say_json(found)
        return NOT_WELL if found.missing else 0
    for regime, clauses in found.regimes.items():
        say(f"{regime}: {sum(1 for rules in clauses.values() if rules)} of {len(clauses)} clauses")
        for clause, rules in clauses.items():
            say(f"  {clause:8} {', '.join(rules) or 'MISSING'}")
    say(f"{found.total - len(found.missing)} of {found.total} clauses are carried by a rule")
    return NOT_WELL if found.missing else 0


@app.command
def diff(before: str, after: str, *, json: Json = False) -> None:
    """Compare two policies in terms of rules."""
    from shared.policy.diffing import diff as run

    changes = run(_document(before).values, _document(after).values)
    if json:
        say_json(changes)
        return
    for one in changes:
        clause = f" [{', '.join(one.clause)}]" if one.clause else ""
        say(f"{one.kind:8} {one.section} {one.rule}{clause}")
        for pointer, old, new in one.parts:
            say(f"         {pointer or '/'}: {old!r} → {new!r}")
    say("no difference" if not changes else f"{len(changes)} changes")


@app.command
def templates(*, json: Json = False) -> None:
    """List the ready-made policies."""
    from shared.policy import catalogue
    from shared.policy.template_files import names

    regimes = catalogue.regimes()
    rows = [(regime, name, regimes[regime].title.en, regimes[regime].title.zh) for regime, name in names().items()]
    if json:
        say_json([{"regime": row[0], "name": row[1], "title": {"en": row[2], "zh": row[3]}} for row in rows])
    else:
        say(table(("regime", "name", "title", "标题"), rows))


@app.command
def backtest(
    draft: str,
    *,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    to: str | None = None,
    choices: Choices = None,
    access: Access | None = None,
    json: Json = False,
) -> None:
    """Replay the tenant's own history under a draft: breaches gained and lost, fines, deadlines moved, and the complaints behind each.

    Parameters
    ----------
    from_
        First day of receipt, such as 2026-01-01; default: everything.
    to
        Last day of receipt; default: today.
    """
    document, settings = _document(draft).values, _settings(choices)
    access = access or Access()
    parts: list[dict[str, Any]] = []
    after = None
    while True:
        body = {"document": document, "settings": settings, "from": from_, "to": to, "after": after, "limit": 2000}
        page = ask(
            access, "POST", "/v1/cases:backtest", body={key: one for key, one in body.items() if one is not None}
        )
        parts.append(page["result"])
        after = page["next"]
        if after is None:
            break
        note(f"{sum(one['cases'] for one in parts)} complaints …")
    total = {
        key: sum(one[key] for one in parts) if isinstance(value, int) else value for key, value in parts[0].items()
    }
    total["changes"] = [change for one in parts for change in one["changes"]]
    total["failed"] = [case for one in parts for case in one["failed"]]
    if json:
        say_json(total)
        return
    say(f"{total['cases']} complaints, {total['changed']} stand otherwise under the draft")
    say(
        f"breaches {total['breaches_before']} → {total['breaches_after']}"
        f" (gained {total['breaches_gained']}, lost {total['breaches_lost']})"
    )
    fines = (total["fines_before_minor"], total["fines_after_minor"])
    say(f"amounts {fines[0]} → {fines[1]} minor units of {total['currency']} ({fines[1] - fines[0]:+})")
    say(f"deadlines moved: {total['deadlines_moved']}")
    for one in total["changes"][:50]:
        told = [f"{move['rule']}: {move['before']} → {move['after']}" for move in one["moved"]]
        told += [f"+{name}" for name in one["breaches_gained"]] + [f"-{name}" for name in one["breaches_lost"]]
        say(f"  {one['number'] or one['case_id']}: {'; '.join(told)}")


@app.command
def publish(
    file: str,
    *,
    effect: Literal["keep", "from_now", "retroactive"] = "keep",
    reason: str,
    choices: Choices = None,
    yes: Annotated[bool, Parameter(name="--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, Parameter(name="--dry-run", help="Show what would happen and publish nothing.")] = False,
    access: Access | None = None,
    json: Json = False,
) -> int:
    """Publish a policy, after showing which open complaints it moves.

    Parameters
    ----------
    effect
        keep: open complaints keep the version they were received under; from_now: they go on under this one; retroactive: as if it had
        always been.
    reason
        Why; it is kept with the version.
    """
    document, settings = _document(file).values, _settings(choices)
    access = access or Access()
    moved: list[dict[str, Any]] = []
    after = None
    while effect != "keep":
        body = {"document": document, "settings": settings, "effect": effect, **({"after": after} if after else {})}
        page = ask(access, "POST", "/v1/cases:impact", body=body)
        moved += page["items"]
        after = page["next"]
        if after is None:
            break
    if not json:
        say(f"{len(moved)} open complaints stand otherwise under it")
        for one in moved:
            told = "; ".join(f"{clock['rule']}: {clock['was']} → {clock['becomes']}" for clock in one["clocks"])
            say(f"  {one['number']} ({one['state']}): {told or ', '.join(one['parts'])}")
    if not dry_run and not yes and not _agreed():
        raise CommandError("Nothing was published.")
    body = {
        "document": document,
        "settings": settings,
        "effect": effect,
        "reason": reason,
        "validate_only": dry_run,
    }
    answer = ask(access, "POST", "/v1/policies:publish", body=body)
    if json:
        say_json({**answer, "moved": moved})
    elif answer["state"] == "published":
        say(f"published as version {answer['version']}")
    else:
        say("another administrator has to approve it" if answer["state"] == "waiting" else "nothing stands in its way")
    return 0


def _agreed() -> bool:
    """Ask, where somebody is there to answer."""
    import sys

    if not sys.stdin.isatty():
        raise CommandError("Give --yes to publish without being asked.")
    note("Publish it? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
