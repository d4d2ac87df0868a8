"""`lora-bench export`: write an adapter or merged weights, with a model card."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.adapter_options import adapters_option, check_choice, model_option, open_adapters
from lora_bench.cli.options import metric_option, option, runs_dir_option, trial_option
from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK, UsageError


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench export`."""

    run: Path | None = option(
        nargs="?",
        metavar="SPEC|RUN_DIR",
        help="a run, given by its spec or its folder; not needed with --adapter",
    )
    runs_dir: Path = runs_dir_option()
    trial: str = trial_option()
    metric: str | None = metric_option()
    adapters: Sequence[Path] = adapters_option()
    model: str | None = model_option()
    to: Path = option("--to", metavar="FOLDER", help="a new folder")
    merged: bool = option("--merged", help="merge the adapter into the weights, for transformers")
    license: str | None = option(
        "--license", metavar="ID", help="licence for the model card; default: that of the base weights"
    )
    push_to_hub: str | None = option(
        "--push-to-hub",
        metavar="OWNER/NAME",
        help="also upload to this repository of the Hugging Face Hub; a new one is private unless --public",
    )
    public: bool = option("--public", help="make a new repository public")


def _export_adapters(options: Options) -> int:
    """Write adapters that belong to no run, added up.

    Raises:
        UsageError: an option that needs the scores of a run.
    """
    from lora_bench.adapters.export import export_sum

    if options.push_to_hub is not None or options.license is not None or options.public:
        raise UsageError(
            "--push-to-hub, --public and --license: need a run, whose scores and data the model card states; export "
            "from a run that has the adapter as `lora.path`"
        )
    model = open_adapters(options.adapters, options.model).model
    for path in export_sum(model, options.adapters, options.to.absolute(), merged=options.merged):
        print(path)
    return EXIT_OK


def execute(options: Options) -> int:
    """Write the folder, upload it with `--push-to-hub`, and print the files.

    Raises:
        UsageError: no such run or trial, or the folder is in use.
        ResourceError: the upload failed; the folder is kept.
    """
    from lora_bench.adapters.choose import choose_trial
    from lora_bench.adapters.export import export_trial, public_model_name
    from lora_bench.adapters.hub import check_repository, push_folder
    from lora_bench.adapters.model_card import CardFacts, find_licence

    check_choice(options.run, options.adapters, options.model)
    repository = options.push_to_hub
    if options.run is None:
        return _export_adapters(options)
    if repository is not None:
        check_repository(repository)
    run = resolve_run(options.run, options.runs_dir)
    chosen = choose_trial(run.absolute(), options.trial, options.metric)
    if chosen.reason:
        print(chosen.reason, file=sys.stderr)
    base_name = public_model_name(chosen.plan.model.id)
    folder = options.to.absolute()
    facts = CardFacts(repository or folder.name, base_name, options.license)
    for path in export_trial(chosen, folder, facts, merged=options.merged):
        print(path)
    if find_licence(base_name) is None and options.license is None:
        print(f"the licence of {base_name} is unknown; set it with --license", file=sys.stderr)
    if repository is not None:
        print(push_folder(folder, repository, public=options.public))
    return EXIT_OK
