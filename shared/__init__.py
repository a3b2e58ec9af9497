"""What the services agree on: contracts, the policy language and its engine, and plumbing. Imports no service."""

VERSION = "0.1.0"
"""Of the product; `pyproject.toml` says the same."""
