"""Reporting: one fact row for each case, rollups by day, reports and exports."""
