"""Data sets, one file each. Installed as ``bench.datasets``."""
