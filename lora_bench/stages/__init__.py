"""The stages of a trial, one per module; they do not import one another, `trial.py` joins them."""
