"""Intake: tenants and what they publish, complaints as they come in, and the vault with all personal data."""
