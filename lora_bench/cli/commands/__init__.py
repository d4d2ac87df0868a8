"""One module per verb, each with `execute(arguments) -> exit code`; `cli.main` imports it on use."""
