"""One module per verb, each with `execute(arguments) -> exit code`; imported by `cli.py` when it is used."""
