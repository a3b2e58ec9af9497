"""The pure engine of the policy language: calendars, the fold, clocks, penalties, gates, explanations.

No I/O, no wall clock, no randomness: what a rule needs arrives as an argument, and the same arguments always give the
same figures. Routing, sla, the simulator and the back-test run this very code.
"""
