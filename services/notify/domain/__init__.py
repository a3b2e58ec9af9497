"""The rules of notify: pure functions, no I/O, no clock."""
