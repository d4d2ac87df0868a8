"""Choose which trials of a grid to run."""
