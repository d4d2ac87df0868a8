"""Run an experiment: prepare data, run trials, keep their state."""
