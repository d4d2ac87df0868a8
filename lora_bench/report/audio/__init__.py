"""Clips, players and spectrograms of a report."""
