"""What sla reads from the environment, beside what every service reads."""

from __future__ import annotations

from shared.settings import ServiceSettings


class SlaSettings(ServiceSettings, frozen=True, kw_only=True):
    wake_batch: int = 200  # cases looked at in one transaction
    late_seconds: int = 120  # an announcement later than this after its instant is marked late
