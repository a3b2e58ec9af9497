"""The auditor: whether what was promised is so.

It reads the five schemas of PostgreSQL, the streams of NATS, the journal of whoever sent the complaints and the record of whoever
took the messages, and counts what does not agree. It shares no code with the services: what a service believes is no proof.

What it does not look at, because nothing else says the same or no promise rests on it, stands in docs/operations.md.
"""
