"""Expand a checked spec into trials."""
