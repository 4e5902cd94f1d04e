"""One run, from the outside: prepare what it needs, start the measured process, watch it, and keep what it says."""
