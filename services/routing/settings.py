"""What routing reads from the environment, beside what every service reads."""

from __future__ import annotations

from shared.settings import Secret, ServiceSettings


class RoutingSettings(ServiceSettings, frozen=True, kw_only=True):
    """A field `tick_busy_seconds` is RECOURSE_TICK_BUSY_SECONDS, or RECOURSE_ROUTING_TICK_BUSY_SECONDS."""

    master_key: Secret  # contacts of staff are encrypted under keys derived from it: 32 bytes in base64
    master_key_previous: Secret | None = None  # former ones, comma-separated
    tick_due_seconds: float = 0.1  # between two ticks while something falls due
    tick_busy_seconds: float = 0.5  # while anything happens
    tick_idle_seconds: float = 10.0  # otherwise
    refresh_batch: int = 50  # cases looked at anew in one round
    move_batch: int = 50  # cases that a publication reaches, in one transaction
    sweep_seconds: float = 10.0  # between two looks for complaints without an assignee
    sweep_back_seconds: float = 900.0  # how far back each look goes; once an hour it goes back to the beginning
