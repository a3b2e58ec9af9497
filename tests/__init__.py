"""Tests: unit, contract, integration and e2e, each by service."""
