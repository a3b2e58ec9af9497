"""sla: wake-ups, announcements, the penalty ledger. See README.md."""
