"""`lora-bench push`: publish the adapters, the clips and the report of a run on the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.options import option, runs_dir_option
from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK

HUB = "--hub"


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench push`."""

    run: Path = option(metavar="SPEC|RUN_DIR", help="a run, given by its spec or its folder")
    runs_dir: Path = runs_dir_option()
    hub: str = option(HUB, metavar="OWNER/NAME", help="what the names of the repositories begin with")
    trial: Sequence[str] = option(
        "--trial",
        metavar="NAME",
        nargs="+",
        default=(),
        help="trials whose adapters are published, by name or id, or `best`; default: all that were trained here",
    )
    dry_run: bool = option("--dry-run", help="list what would be published, without the hub")
    with_recordings: bool = option(
        "--with-recordings",
        help="also publish excerpts of your recordings: references, and passages that clips resemble",
    )
    public: bool = option("--public", help="make new repositories public; they are private without it")
    license: str | None = option(
        "--license", metavar="ID", help="licence of adapters and clips; default: that of the base weights"
    )


def execute(options: Options) -> int:
    """Write the folders of all repositories, and upload them or list their files.

    Raises:
        UsageError: no such run or trial, or no name of a repository.
        ResourceError: offline, not logged in, or the hub refused; what was uploaded before stays.
    """
    from lora_bench.adapters.hub import check_login, check_repository, push_folder
    from lora_bench.adapters.publication import Choice, write_publications

    check_repository(options.hub, HUB)
    if not options.dry_run:
        check_login(HUB)
    choice = Choice(options.hub, options.trial, options.with_recordings, options.license)
    run = resolve_run(options.run, options.runs_dir).absolute()
    with tempfile.TemporaryDirectory(prefix="lora-bench-") as place:
        found = write_publications(run, choice, Path(place))
        for item in found:
            files = item.list_files()
            n_bytes = sum(size for _, size in files)
            about = f"{item.kind} {item.repository}: {len(files)} files, {n_bytes / 1e6:.1f} MB"
            if options.dry_run:
                print(about)
                for name, size in files:
                    print(f"  {name} ({size} bytes)")
            else:
                url = push_folder(
                    item.folder,
                    item.repository,
                    public=options.public,
                    kind=item.kind,
                    option=HUB,
                    is_kept=False,
                )
                print(f"{about}: {url}")
    if not options.with_recordings:
        print("your recordings are left out; --with-recordings adds excerpts of them")
    return EXIT_OK
