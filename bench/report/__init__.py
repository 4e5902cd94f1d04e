"""Records to tables and text: pure functions."""
