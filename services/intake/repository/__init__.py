"""Every SQL statement of intake: rows in, values out. Nothing here begins or ends a transaction."""
