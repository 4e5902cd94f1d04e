"""Storage backends, one file each. Installed as ``bench.loaders``."""
