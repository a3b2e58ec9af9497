"""Every SQL statement of routing, by what it is about."""
