"""`lora-bench doctor`: report what this machine can run, what is missing, and the command that installs it.

Nothing uses the network.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from lora_bench.cli.findings import GIB, Finding, format_findings
from lora_bench.cli.options import json_option, option
from lora_bench.cli.tables import print_json
from lora_bench.errors import EXIT_FAILURE, EXIT_OK, LoraBenchError, ModelError
from lora_bench.forecast.shapes import hub_cache
from lora_bench.machine.gpus import Gpus, usable_gpus
from lora_bench.metrics.names import ENCODER_NAMES, list_distances, list_encoders, parse_metric
from lora_bench.plugins import PluginSource, list_plugins
from lora_bench.report.formatting import count_noun
from lora_bench.runner.environment import count_cpus, cpu_name, memory_gib, package_versions
from lora_bench.runner.process_environment import is_writable

SCHEMA = 1
MODEL_ENCODERS = ("mfcc20", "encodec")  # use the music model, so they run where it runs


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench doctor`."""

    model: str | None = option(
        "--model", metavar="ID", help="load this model offline, and report its properties or what is missing"
    )
    json: bool = json_option()


def execute(options: Options) -> int:
    """Print every finding; return 1 if something essential is missing."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.model is not None:
        from lora_bench.cli.model_rehearsal import rehearse_model

        findings = list(rehearse_model(options.model))
    else:
        findings = look_at_everything()
    if options.json:
        document = {"schema": SCHEMA, "findings": [asdict(finding) for finding in findings]}
        print_json(document)
    else:
        print(format_findings(findings))
    broken = any(finding.essential and finding.ok is False for finding in findings)
    return EXIT_FAILURE if broken else EXIT_OK


def look_at_everything() -> list[Finding]:
    """Return every finding about this machine."""
    return [
        *look_at_machine(),
        *look_at_packages(),
        *look_at_audio(),
        *look_at_models(),
        *look_at_backends(),
        *look_at_executors(),
        *look_at_encoders(),
        *look_at_plugins(),
    ]


def look_at_machine() -> Iterator[Finding]:
    """Report Python, processor, memory, GPUs and disk."""
    version = sys.version_info
    yield Finding(
        "machine",
        "python",
        (3, 11) <= version[:2] <= (3, 13),
        ".".join(map(str, version[:3])),
        "use Python 3.11, 3.12 or 3.13",
        essential=True,
    )
    yield Finding("machine", "processor", None, f"{count_cpus()} x {cpu_name()}")
    yield Finding("machine", "memory", None, f"{memory_gib():g} GiB")
    free_gib = shutil.disk_usage(Path.cwd()).free / GIB
    yield Finding("machine", "disk", free_gib >= 1.0, f"{free_gib:.1f} GiB free here", "free at least 1 GiB")
    numba = Path(os.environ.get("NUMBA_CACHE_DIR", "")).absolute()
    mend = "set NUMBA_CACHE_DIR to a writable folder"
    yield Finding("machine", "numba's cache", is_writable(numba), str(numba), mend)
    yield look_at_gpus()


def look_at_gpus() -> Finding:
    """Report the GPUs that torch can use, or why it cannot."""
    try:
        found = usable_gpus()
    except ImportError:
        found = Gpus({})
    names = ", ".join(found.names.values()) or "none that torch can use"
    detail = names if found.problem is None else f"{names}: {found.problem}"
    mend = "musicgen-small needs a CUDA GPU; the pocket model runs on the CPU"
    return Finding("machine", "GPUs", bool(found.names), detail, mend)


def look_at_packages() -> Iterator[Finding]:
    """Report the packages that affect numbers, with versions."""
    optional = {"frechet-audio-distance", "optuna"}
    for name, version in package_versions().items():
        if name == "audiocraft":  # a backend, which has to be imported to be sure
            continue
        mend = f"pip install {name}"
        yield Finding(
            "packages",
            name,
            version is not None,
            version or "not installed",
            mend,
            essential=name not in optional,
        )


def look_at_audio() -> Iterator[Finding]:
    """Report the audio formats that can be read; the `ffmpeg` program is not needed."""
    if find_spec("soundfile") is None:
        yield Finding(
            "audio files", "wav, flac, ogg", False, "no soundfile", "pip install soundfile", essential=True
        )
    else:
        import soundfile

        known = soundfile.available_formats()
        for kind, label in (("WAV", "wav"), ("FLAC", "flac"), ("OGG", "ogg, opus"), ("MP3", "mp3")):
            version = soundfile.__libsndfile_version__
            yield Finding(
                "audio files", label, kind in known, f"libsndfile {version}", "pip install -U soundfile"
            )
    has_av = find_spec("av") is not None
    yield Finding("audio files", "m4a, aac", has_av, "PyAV" if has_av else "no PyAV", "pip install av")


def look_at_models() -> Iterator[Finding]:
    """Report the embedded model, and the MusicGen models in the hub's cache."""
    from lora_bench.models.pocket import pocket_folder

    try:
        detail, ok = str(pocket_folder()), True
    except FileNotFoundError as error:
        detail, ok = str(error), False
    yield Finding("models", "pocket", ok, detail, "reinstall lora-bench", essential=True)
    cached = sorted(hub_cache().glob("models--*musicgen*"))
    for folder in cached:
        name = folder.name.removeprefix("models--").replace("--", "/")
        complete = any((folder / "snapshots").glob("*/config.json"))
        detail = "in the cache" if complete else "incomplete download"
        yield Finding("models", name, complete, detail, f"hf download {name}")
    if not any("musicgen-small" in folder.name for folder in cached):
        mend = "hf download facebook/musicgen-small  (needs a network once; CC BY-NC 4.0)"
        yield Finding("models", "facebook/musicgen-small", False, f"not in {hub_cache()}", mend)


def look_at_backends() -> Iterator[Finding]:
    """Report the values of `model.backend`; audiocraft is imported, because it pins a torch of 2023."""
    from lora_bench.models.audiocraft_library import INSTALL, require_audiocraft

    versions = package_versions()
    yield Finding("backends", "transformers", True, f"{versions.get('transformers')}, the default")
    version = versions.get("audiocraft")
    ok, detail = version is not None, version or "not installed"
    if version is not None:
        try:
            require_audiocraft()
        except ModelError as error:
            ok, detail = False, f"{version}, {error.__cause__}"
    mend = f"{INSTALL}  (in the repository; pip alone cannot resolve its pins)"
    yield Finding("backends", "audiocraft", ok, " ".join(detail.split())[:200], mend)


def look_at_executors() -> Iterator[Finding]:
    """Report whether trials can run here, one at a time or in parallel."""
    yield Finding("executors", "local", True, "one trial at a time, in this process")
    try:
        ray, numpy, pyarrow = (metadata.version(name) for name in ("ray", "numpy", "pyarrow"))
    except metadata.PackageNotFoundError as error:
        yield Finding(
            "executors",
            "ray",
            False,
            f"{error.name} is not installed",
            'pip install "ray[tune]" "pyarrow<26"',
        )
        return
    fits = not (int(numpy.split(".")[0]) < 2 and int(pyarrow.split(".")[0]) >= 26)
    detail = f"{ray} with pyarrow {pyarrow}" + (
        "" if fits else f", which cannot be imported with numpy {numpy}"
    )
    yield Finding("executors", "ray", fits, detail, 'pip install "pyarrow<26"')


def look_at_encoders() -> Iterator[Finding]:
    """Report which encoders can be used; those with weights of their own are loaded."""
    from lora_bench.encoders import ENCODER_NAMES as LOADABLE
    from lora_bench.encoders import get_encoder

    for name in (*LOADABLE, *list_encoders()):
        if name in MODEL_ENCODERS:
            yield Finding("encoders", name, True, "uses the music model")
            continue
        try:
            encoder = get_encoder(name, device="cpu")
        except (LoraBenchError, ImportError) as error:
            reason = " ".join(str(error).split()).removeprefix(f"{name}: ")
            yield Finding("encoders", name, False, "its metrics will be unscored", reason)
        else:
            yield Finding("encoders", name, True, count_noun(encoder.dim, "dimension"))


def look_at_plugins() -> Iterator[Finding]:
    """Report whether the distances, captioners and sources of other packages can be loaded."""
    from lora_bench.spec.captions import CaptionSpec
    from lora_bench.spec.data_sources import PLUGIN
    from lora_bench.stages.dataset.captioner import Captioner
    from lora_bench.stages.dataset.source_plugin import PluginTracks
    from lora_bench.stages.score import find_distance

    kinds: dict[str, tuple[Mapping[str, PluginSource], Callable[[str], object], str]] = {
        "distances": (
            list_distances(),
            lambda name: find_distance(parse_metric(f"{name}/{ENCODER_NAMES[0]}")),
            "its metrics will be unscored",
        ),
        "captioners": (
            list_plugins("captioners"),
            lambda name: Captioner(CaptionSpec(captioner=name)),
            "runs that name it are refused",
        ),
        "sources": (
            list_plugins("sources"),
            lambda name: PluginTracks(Path(f"{PLUGIN}{name}"), {}),
            "runs that name it are refused",
        ),
    }
    for kind, (sources, load, result) in kinds.items():
        for name, source in sources.items():
            try:
                load(name)
            except LoraBenchError as error:
                yield Finding(kind, name, False, result, " ".join(str(error).split()))
            else:
                yield Finding(kind, name, True, source.package)
