"""Records of runs: what they hold, where they lie, and what is read out of them."""
