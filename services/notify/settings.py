"""What notify reads from the environment."""

from __future__ import annotations

import base64
import binascii

from shared.settings import Secret, ServiceSettings, SettingsError


class NotifySettings(ServiceSettings, frozen=True, kw_only=True):
    """Addresses and secrets have no default; the rest has one, with its unit."""

    master_key: (
        Secret  # 32 bytes in base64; the secrets of providers and endpoints are encrypted under keys derived from it
    )
    master_key_previous: Secret | None = None  # former master keys, comma-separated: what they sealed still opens
    plain_http: bool = False  # providers and endpoints on port 80 of the public Internet
    send_at_once: int = 32  # provider calls in flight, per process
    send_at_once_per_tenant: int = 8  # so that one tenant's slow provider leaves room for the others
    send_seconds: float = 10.0  # one call, from resolving the name to the last byte
    contact_seconds: float = 2.0  # waiting for the vault or for routing
    retry_scale: float = 1.0  # stretches the waits between attempts
    sandbox_retry_scale: float = 0.05  # a sandbox must not wait hours for a provider that is down
    rest_seconds: float = 45.0  # an advance of a sandbox's clock waits this long for messages that do not get through
    sms_per_day: int = 10_000  # per tenant, unless its provider says less
    email_per_day: int = 50_000
    secret_overlap_hours: int = 24  # the old secret of an endpoint goes on signing this long after a rotation

    def keys(self) -> list[bytes]:
        """The master key and its predecessors; SettingsError when one is not 32 bytes in base64."""
        former = [text.strip() for text in str(self.master_key_previous or "").split(",")]
        return [_key(text) for text in (str(self.master_key), *filter(None, former))]


def _key(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != 32:
        raise SettingsError("RECOURSE_MASTER_KEY does not fit: expected 32 bytes in base64.")
    return found
