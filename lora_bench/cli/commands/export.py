"""`lora-bench export`: an adapter to take away, with its model card."""

from __future__ import annotations

import argparse
import sys

from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK


def execute(arguments: argparse.Namespace) -> int:
    """Write the folder, push it if that was asked for, and print the files.

    Raises:
        UsageError: no such run or trial, or the folder is in use.
        ResourceError: the hub did not take it; the folder is kept.
    """
    from lora_bench.adapters.choose import choose_trial
    from lora_bench.adapters.export import export_trial, public_model_name
    from lora_bench.adapters.hub import check_repository, push_folder
    from lora_bench.adapters.model_card import CardFacts, find_licence

    repository = arguments.push_to_hub
    if repository is not None:
        check_repository(repository)
    run = resolve_run(arguments.run, arguments.runs_dir)
    chosen = choose_trial(run.absolute(), arguments.trial, arguments.metric)
    if chosen.reason:
        print(chosen.reason, file=sys.stderr)
    base_name = public_model_name(chosen.plan.model.id)
    folder = arguments.to.absolute()
    facts = CardFacts(repository or folder.name, base_name, arguments.license)
    for path in export_trial(chosen, folder, facts, merged=arguments.merged):
        print(path)
    if find_licence(base_name) is None and arguments.license is None:
        print(f"the licence of {base_name} is not known; state one with --license", file=sys.stderr)
    if repository is not None:
        print(push_folder(folder, repository, public=arguments.public))
    return EXIT_OK
