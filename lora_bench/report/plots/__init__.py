"""Figures of scores and studies."""
