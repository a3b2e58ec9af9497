"""What a reader of docs/policy-guide.md has typed after each step: the guide's blocks put together, so that the guide alone is the source.

A block of YAML belongs to the policy unless a comment before it says otherwise:

* `<!-- scenario: NAME.yaml -->`: a scenario of its own;
* `<!-- replace -->`: its first line stands in the policy already, the others take its place.

A block `console` is a command and what it says; `…` on a line of its own stands for lines that are left out. After
`<!-- broken: s/A/B/ -->` the policy has a slip in it.

`python -m tests.guide.assembling` writes the assembled policy and the guide's scenarios beside this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "docs" / "policy-guide.md"
POLICY = HERE / "water.yaml"
SCENARIOS = HERE / "scenarios"
ORIGIN = "# The worked policy of docs/policy-guide.md, put together by `make docs`. Change it there.\n"

_FENCE = re.compile(
    r"(?:<!-- (?P<mark>[a-z]+)(?:: (?P<name>[^\n]+?))? -->\n)?```(?P<kind>[a-z]+)\n(?P<text>.*?)```", re.DOTALL
)
_TOP = re.compile(r"([a-z_]+):(.*)")
_SUB = re.compile(r"  ([a-z_]+):")

Policy = dict[str, dict[str, list[str]]]
"""Lines by section and, within it, by key of the second level; `""` holds those before any."""


class Block(Struct, frozen=True):
    """One fenced block of the guide."""

    kind: str
    mark: str
    name: str
    text: str


class Command(Struct, frozen=True):
    """A command of the guide with what it says, and what has been typed by then."""

    arguments: tuple[str, ...]
    said: str
    policy: str
    scenarios: dict[str, str]


def blocks(guide: str) -> Iterator[Block]:
    for found in _FENCE.finditer(guide):
        yield Block(found["kind"], found["mark"] or "", found["name"] or "", found["text"])


def add(policy: Policy, text: str) -> None:
    """Put the lines of a block at the end of their sections."""
    top = sub = ""
    for line in text.splitlines():
        if not line:
            continue
        if found := _TOP.fullmatch(line):
            top, sub = found[1], ""
            section = policy.setdefault(top, {})
            if found[2]:
                section[""] = [line]
            continue
        if found := _SUB.match(line):
            sub = found[1]
            if sub in policy[top] and line == f"  {sub}:":
                continue
        policy[top].setdefault(sub, []).append(line)


def replace(policy: Policy, text: str) -> None:
    """Put the lines after the first in its place. ValueError where it does not stand exactly once."""
    first, *others = text.splitlines()
    places = [lines for section in policy.values() for lines in section.values() if first in lines]
    if len(places) != 1 or places[0].count(first) != 1:
        raise ValueError(f"this line does not stand exactly once: {first}")
    place = places[0].index(first)
    places[0][place : place + 1] = others


def written(policy: Policy) -> str:
    """The policy as a file."""
    headers: list[str] = []
    sections: list[str] = []
    for top, section in policy.items():
        lines = [line for part in section.values() for line in part]
        if lines[0].startswith(f"{top}:"):
            headers += lines
        else:
            sections.append("\n".join(("", f"{top}:", *lines, "")))
    return "\n".join((*headers, "")) + "".join(sections)


def steps(guide: str) -> list[str]:
    """The policy after each block that adds to it or changes it."""
    policy: Policy = {}
    found = []
    for block in blocks(guide):
        if block.kind == "yaml" and block.mark in ("", "replace"):
            (replace if block.mark else add)(policy, block.text)
            found.append(written(policy))
    return found


def scenarios(guide: str) -> dict[str, str]:
    """The scenarios of the guide by file name."""
    return {block.name: block.text for block in blocks(guide) if block.mark == "scenario"}


def commands(guide: str) -> list[Command]:
    """The commands of the guide whose answer is shown, in their order."""
    policy: Policy = {}
    tried: dict[str, str] = {}
    found = []
    for block in blocks(guide):
        if block.kind == "yaml" and block.mark in ("", "replace"):
            (replace if block.mark else add)(policy, block.text)
        elif block.mark == "scenario":
            tried[block.name] = block.text
        elif block.kind == "console":
            first, _, said = block.text.partition("\n")
            text = written(policy)
            if block.mark == "broken":
                _, before, after, _ = block.name.split("/")
                text = re.sub(before, after, text, count=1, flags=re.MULTILINE)
            arguments = tuple(first.removeprefix("$ recourse ").split())
            found.append(Command(arguments, said, text, dict(tried)))
    return found


def main() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    POLICY.write_text(ORIGIN + steps(guide)[-1], encoding="utf-8")
    for name, text in scenarios(guide).items():
        (SCENARIOS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
