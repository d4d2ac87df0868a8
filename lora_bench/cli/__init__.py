"""The command line: options, verbs, tables, progress and messages."""
