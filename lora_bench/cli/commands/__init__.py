"""One module per verb, with its `Options`, `add_arguments(parser)` and `execute(options) -> exit code`."""
