"""Inside the measured process: open a store, train a network from it epoch by epoch, and say what it took."""
