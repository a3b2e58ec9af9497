"""A message in words: the rule's template, in the recipient's language, filled with what was stored when it was called for."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from msgspec import Struct

from services.notify.domain import wording
from services.notify.recording import Ended
from services.notify.repository import Delivery
from shared.engine.rules import MessageRule
from shared.policy.wording import WordingError, one_line
from shared.reference import Reference, Tenant

MOST_SUBJECT_CHARACTERS = 200


class Words(Struct, frozen=True):
    subject: str
    text: str

    def __repr__(self) -> str:
        return "Words(…)"


async def words_of(
    reference: Reference, delivery: Delivery, tenant: Tenant, language: str | None, name: str | None
) -> Words | Ended:
    """Return subject and text, or why there are none. Raises NotYetError while the policy's version has not arrived.

    Args:
        language: the recipient's, where it is known.
        name: the complainant's, for the complainant alone.
    """
    assert delivery.policy_version is not None
    policy = await reference.policy(tenant.tenant_id, delivery.policy_version)
    rule: MessageRule | None = next((each for each in policy.messages if each.id == delivery.rule), None)
    if rule is None:
        return Ended("dead", "rule_missing")
    chosen, template = wording.choose(rule.template, language, tenant.language)
    _, subject = wording.choose(rule.subject, chosen)
    try:
        text, title = (
            wording.fill(
                each,
                delivery.fields,
                policy,
                organisation=tenant.name,
                zone=ZoneInfo(tenant.zone),
                language=chosen,
                name=name,
            )
            for each in (template, subject)
        )
    except WordingError:
        return Ended("dead", "template_fails")
    if not text.strip():
        return Ended("suppressed", "text_empty")
    title = one_line(title) or one_line(f"{tenant.name} {delivery.number}")
    return Words(title[:MOST_SUBJECT_CHARACTERS], text.strip())
