"""Overview of a folder of runs, with leaderboards of comparable scores."""
