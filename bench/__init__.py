"""dataset-bench: which storage format feeds PyTorch training fastest, measured and verified."""

__version__ = "0.2.0"
