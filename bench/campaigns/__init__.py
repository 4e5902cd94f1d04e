"""Many runs: their plan, one after the other in randomised blocks, and searches that choose the next ones."""
