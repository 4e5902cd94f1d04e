"""What to run, as frozen and validated values: the identity of a store, of a run and of how a network is trained."""
