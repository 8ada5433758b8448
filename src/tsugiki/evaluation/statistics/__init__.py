"""Estimates, intervals, paired tests and power from arrays; nothing of tasks or rows."""
