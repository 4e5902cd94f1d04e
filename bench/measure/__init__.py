"""Clocks and counters."""
