"""Time to scan a folder of 2,000 tracks by their headers, against soundfile; and to prepare some of them, with memory.

    python benchmarks/scan.py                       # Wesnoth's music, from a Debian package
    python benchmarks/scan.py --music FOLDER --tracks 2000 --prepare 8 --threads 1 2 4

The folder holds links to the same few files, so it measures reading from the disk's cache. `scan` lists the files,
checks that each is whole, and measures its length; soundfile alone opens each file.  `survey` is all that `init` reads,
with captions and tags.  `prepare` decodes, resamples and changes the first tracks, once for each number of threads.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from lora_bench.artifacts import AudioFormat
from lora_bench.audio import list_folder, read_header
from lora_bench.cli.folder_survey import survey_folder
from lora_bench.progress import SilentProgress
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.prepare import PrepareSpec
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset import prepare, prepare_dataset
from lora_bench.store import Store

MUSIC = Path("/usr/share/games/wesnoth/1.16/data/core/music")
LIMIT_S = 20.0
EVERYTHING = PrepareSpec(remove_dc=True, trim_silence_db=-50.0, loudness_lufs=-16.0)


def link_tracks(music: Path, folder: Path, n_tracks: int) -> None:
    """Fill a folder with links to the recordings of another one, in subfolders of 100."""
    files = list_folder(music).files
    for index in range(n_tracks):
        source = files[index % len(files)]
        place = folder / f"{index // 100:03d}" / f"{index:05d}{source.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.absolute())


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds."""
    wall_s, used_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall_s, time.process_time() - used_s


def scan(folder: Path) -> None:
    """Measure every file's length."""
    for path in list_folder(folder).files:
        read_header(path)


def open_with_soundfile(folder: Path) -> None:
    """Open every file with soundfile, which does not check that it is whole."""
    for path in list_folder(folder).files:
        soundfile.info(str(path))


def prepare_tracks(folder: Path, cache: Path, n_threads: int, heard_s: float) -> None:
    """Print time and memory of the preparation of a folder, and the time of a second one from the cache."""

    def make_pool(**_: object) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(n_threads)

    prepare.ThreadPoolExecutor = make_pool
    spec = DatasetSpec(path=folder, captions=CaptionSpec(text="a"), prepare=EVERYTHING)
    store = Store(cache)

    def work() -> None:
        prepare_dataset(spec, AudioFormat(32_000, 1), store, SilentProgress())

    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall_s, used_s = measure(work)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    again_s, _ = measure(work)
    print(
        f"{n_threads} threads: {wall_s:.1f} s, {used_s:.1f} processor s ({heard_s / used_s:.0f} s of sound each), peak "
        f"{peak_mib:.0f} MiB ({before_mib:.0f} MiB before), again {again_s:.2f} s"
    )


def main() -> int:
    """Print times, ratios and memory; return 1 if the scan takes longer than its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--music", type=Path, default=MUSIC)
    parser.add_argument("--tracks", type=int, default=2000)
    parser.add_argument("--prepare", type=int, default=8, metavar="N")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[prepare.MAX_WORKERS], metavar="N", help="of `prepare`"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "music")
        link_tracks(options.music, folder, options.tracks)
        open_with_soundfile(folder)  # fills the disk's cache
        alone = measure(lambda: open_with_soundfile(folder))
        scanned = measure(lambda: scan(folder))
        surveyed = measure(lambda: survey_folder(folder))
        print(f"{options.tracks} tracks        wall s  processor s  ratio (processor)")
        for name, (wall_s, used_s) in {"soundfile alone": alone, "scan": scanned, "survey": surveyed}.items():
            print(f"{name:<18} {wall_s:8.2f} {used_s:12.2f} {used_s / alone[1]:18.1f}")
        few = Path(place, "few")
        link_tracks(options.music, few, options.prepare)
        heard_s = sum(read_header(path).duration_s for path in list_folder(few).files)
        print(f"prepare {options.prepare} tracks of {heard_s / 60:.1f} minutes")
        for n_threads in options.threads:
            prepare_tracks(few, Path(place, f"cache-{n_threads}"), n_threads, heard_s)
    return int(scanned[0] > LIMIT_S)


if __name__ == "__main__":
    raise SystemExit(main())
