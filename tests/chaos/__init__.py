"""The chaos suite: real processes, real faults, a journal of what was promised, and the independent auditor as judge."""
