"""What intake reads from the environment, beside what every service reads."""

from __future__ import annotations

from shared.settings import Secret, ServiceSettings


class IntakeSettings(ServiceSettings, frozen=True, kw_only=True):
    """A field `smtp_port` is RECOURSE_SMTP_PORT, or RECOURSE_INTAKE_SMTP_PORT."""

    master_key: Secret  # wraps every tenant's keys: 32 bytes in base64
    master_key_previous: Secret | None = None  # former ones, comma-separated, until everything is wrapped anew
    phone_region: str = "CN"  # of telephone numbers written without a country code
    store_batch: int = 64  # complaints of one tenant in one transaction, at most
    store_queue: int = 1_000  # complaints of one tenant that may wait; more are answered 503
    import_rows: int = 200  # rows of a table in one transaction
    import_idle_seconds: float = 1.0  # between two looks for rows that another replica's request left
    smtp_host: str = "127.0.0.1"
    smtp_port: int | None = None  # none: no mail is received; 0: any free one
    smtp_connections: int = 50
    smtp_recipients: int = 5  # of one message
    smtp_seconds: float = 60.0  # a session that says nothing for so long is ended
    mail_seconds: float = 5.0  # reading one message
    mail_memory_bytes: int = 268_435_456  # of the process that reads messages
