"""Listening tests: blind pairs of clips on one page, and what people's answers say about configurations.

`create.py` writes the page, `preferences.py` evaluates the answers.  Between them lies the key in the run's folder: the
page knows pairs by opaque ids only.
"""
