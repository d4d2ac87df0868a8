"""The work of a trial, one stage a module; stages do not know one another, `trial.py` joins them."""
