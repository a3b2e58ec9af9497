"""The HTTP edge: decode, call, encode; no rules."""
