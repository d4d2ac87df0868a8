"""One module per verb, with its `Options` and `execute(options) -> exit code`."""
