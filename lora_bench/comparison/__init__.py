"""Compare trials: choose pairs, test their differences, record verdicts."""
