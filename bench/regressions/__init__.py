"""Today against an earlier day: baselines, the speed of the machine itself, and whether anything became worse."""
