"""Addresses as they may be stored and shown: enough to recognise one's own, not enough to use."""

from __future__ import annotations


def masked_phone(number: str) -> str:
    """`+8613800001111` → `+86138****1111`."""
    if len(number) < 10:
        return "****"
    return f"{number[:-8]}****{number[-4:]}"


def masked_email(address: str) -> str:
    """`wang.fang@example.org` → `w****@example.org`."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}****@{domain}" if at else "****"
