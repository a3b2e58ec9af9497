"""Rules of reporting: pure functions over frozen Structs."""
