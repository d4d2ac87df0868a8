"""What a run publishes: a model per adapter, a dataset of clips, and a page that plays them, as folders of the hub.

Recordings of the user are left out unless they are asked for: references, training passages, clips of other systems.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import yaml

from lora_bench.adapters.choose import ChosenTrial, choose_trial
from lora_bench.adapters.export import export_trial, public_model_name
from lora_bench.adapters.hub import Kind
from lora_bench.adapters.model_card import CardFacts, find_licence
from lora_bench.errors import UsageError
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.trial_plan import read_plan
from lora_bench.report.audio.choose_clips import choose_listening
from lora_bench.report.contents import build_report, choose_title
from lora_bench.report.view import RunView
from lora_bench.report.writers.html import write_page
from lora_bench.results.csv_table import render_csv
from lora_bench.results.gather import gather_results
from lora_bench.slugs import prompt_slug, slugify
from lora_bench.store import write_text

CARD, PAGE, LINES = "README.md", "index.html", "metadata.jsonl"
MAX_NAME = 96
_LINK = re.compile(r'(?:href|src)="(trials/[^"]+\.wav)"')


@dataclass(frozen=True)
class Publication:
    """A folder that becomes a repository."""

    repository: str
    kind: Kind
    folder: Path

    def list_files(self) -> list[tuple[str, int]]:
        """Return names and bytes of the files."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [(path.relative_to(self.folder).as_posix(), path.stat().st_size) for path in files]


@dataclass(frozen=True)
class Choice:
    """What is published.

    Attributes:
        repository: `OWNER/NAME`, which the names of all repositories begin with.
        trials: names or ids of trials with an adapter, or `best`; empty is all that were trained here.
        with_recordings: excerpts of the references, and training passages next to clips that resemble them.
        licence: of adapters and clips; None is that of the base weights.
    """

    repository: str
    trials: Sequence[str] = ()
    with_recordings: bool = False
    licence: str | None = None


def write_publications(run_folder: Path, choice: Choice, place: Path) -> list[Publication]:
    """Write the folders of all repositories of a run below `place`.

    Raises:
        UsageError: no such run or trial, or two repositories would have one name.
        StoreError: the disk is full.
    """
    if not RunFolder(run_folder).plan.is_file():
        raise UsageError(f"{run_folder}: expected the folder of a run, with {RunFolder.plan} in it")
    view = RunView(gather_results(run_folder), run_folder)
    found = [
        _write_model(chosen, choice, place) for chosen in _choose_trials(run_folder, view, choice.trials)
    ]
    clips = Publication(_name(choice, "clips"), "dataset", place / "clips")
    page = Publication(_name(choice, "demo"), "space", place / "demo")
    models = [item.repository for item in found]
    if _write_clips(view, choice, clips, models):
        found.append(clips)
    _write_page(view, choice, page, models)
    found.append(page)
    names = [item.repository for item in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(
            f"--hub: two repositories would be {repeated[0]}; name one of the trials with --trial"
        )
    return found


def _name(choice: Choice, part: str) -> str:
    owner, _, name = choice.repository.partition("/")
    return f"{owner}/{name[: MAX_NAME - len(part) - 1]}-{part}"


def _choose_trials(run_folder: Path, view: RunView, names: Sequence[str]) -> list[ChosenTrial]:
    if not names:  # an adapter that was there before is somebody else's, or published already
        names = [trial.id for trial in view.trials if trial.adapter]
        chosen = [choose_trial(run_folder, name, view=view) for name in names]
        return [item for item in chosen if item.plan.existing_adapter is None]
    return [choose_trial(run_folder, name, view=view) for name in names]


def _write_model(chosen: ChosenTrial, choice: Choice, place: Path) -> Publication:
    slug = slugify(chosen.plan.name, max_length=40)
    found = Publication(_name(choice, slug), "model", place / "models" / slug)
    if found.folder.exists():
        raise UsageError(f"--trial: two trials are named {slug}; name one of them by its id")
    facts = CardFacts(found.repository, public_model_name(chosen.plan.model.id), choice.licence)
    export_trial(chosen, found.folder, facts, merged=False)
    return found


def _write_clips(view: RunView, choice: Choice, target: Publication, models: Sequence[str]) -> bool:
    """Write the clips with a line each, and a card; return whether there are any."""
    lines: list[dict[str, object]] = []
    for trial in view.trials:
        if trial.external is not None:
            continue
        about = {
            "trial": trial.name,
            "configuration": trial.configuration,
            "is_zero_shot": trial.is_zero_shot,
        }
        folder: TrialFolder = view.folder.trial(trial.id)
        for prompt in view.prompts:
            for path in sorted((folder.clips / prompt_slug(prompt)).glob("*.wav")):
                name = f"{slugify(trial.name, max_length=40)}/{prompt_slug(prompt)}/{path.name}"
                lines.append({"file_name": _copy(path, target.folder, name), "prompt": prompt, **about})
    if not lines:
        return False
    if choice.with_recordings:
        for number, source in enumerate(view.source_folders):
            for path in sorted(source.reference_clips.glob("*.wav")):
                name = f"references-{number}/{path.name}"
                lines.append({"file_name": _copy(path, target.folder, name), "trial": "reference"})
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    write_text(target.folder / LINES, text)
    head = {
        **_licence_of(view, choice),
        "task_categories": ["text-to-audio"],
        "tags": ["lora_bench", "music"],
    }
    words = (
        f"Clips of {_quote(choose_title(view))}, made by the base model and with LoRA adapters from the same noise: "
        f"clips of one prompt and number are pairs. `{LINES}` names the prompt and the trial of each."
    )
    if choice.with_recordings:
        words += " `references-*` are excerpts of the recordings that clips were scored against."
    write_text(target.folder / CARD, _write_card(head, view, words, models))
    return True


def _copy(path: Path, folder: Path, name: str) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / name)
    return name


def _write_page(view: RunView, choice: Choice, target: Publication, models: Sequence[str]) -> None:
    """Write the report as the page of a static space, with the clips that it links."""
    heard = choose_listening(view, view.folder.path, with_recordings=choice.with_recordings)
    report = build_report(view, heard)
    title = choose_title(view)
    page = write_page(title, [*report.front, *report.details])
    write_text(target.folder / PAGE, page)
    for link in dict.fromkeys(_LINK.findall(page)):
        name = unquote(unescape(link))
        if (view.folder.path / name).is_file():
            _copy(view.folder.path / name, target.folder, name)
    write_text(target.folder / RunFolder.results_csv, render_csv(view.results))
    head = {"title": title, "sdk": "static", "app_file": PAGE, "tags": ["lora_bench", "music"]}
    words = f"The report of {_quote(title)}, with clips to listen to."
    write_text(target.folder / CARD, _write_card(head, view, words, models))


def _licence_of(view: RunView, choice: Choice) -> dict[str, object]:
    bases = {public_model_name(trial.model.id) for trial in read_plan(view.folder.plan).trials}
    known = {found.id for base in bases if (found := find_licence(base)) is not None}
    licence = choice.licence or (known.pop() if len(known) == len(bases) == 1 else None)
    return {} if licence is None else {"license": licence}


def _quote(title: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", title)


def _write_card(head: Mapping[str, object], view: RunView, words: str, models: Sequence[str]) -> str:
    lines = [
        "---",
        yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {_quote(choose_title(view))}",
        "",
        words,
        *_list_models(models),
        "",
        "Made with lora_bench.",
        "",
    ]
    return "\n".join(lines)


def _list_models(models: Sequence[str]) -> Iterator[str]:
    if models:
        yield ""
        yield "Adapters:"
        yield ""
        yield from (f"- [{name}](https://huggingface.co/{name})" for name in models)
