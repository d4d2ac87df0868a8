"""Lists, archives, tables and shards become the same manifest as a folder; what is unsafe or damaged is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from lora_bench.api import load_spec, plan_experiment
from lora_bench.artifacts import AudioFormat
from lora_bench.cli.main import main
from lora_bench.errors import DatasetError
from lora_bench.planning.run_folder import RunFolder
from lora_bench.progress import SilentProgress
from lora_bench.runner.freshness import dataset_fingerprint
from lora_bench.runner.hub_pins import pin_data
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset import prepare_dataset, sources, unpacked_folder
from lora_bench.stages.dataset.sources import count_recordings, locate_folder
from lora_bench.store import Store

FIRST, SECOND = "0" * 40, "1" * 40
NAMES = ("a.wav", "deep/b.flac", "deep/c.ogg", "d.mp3")
TEXTS = {"a.wav": "slow", "deep/b.flac": "fast", "deep/c.ogg": "loud", "d.mp3": "soft"}


@pytest.fixture(scope="module")
def songs(tmp_path_factory, save_sound):
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    for name in NAMES:
        save_sound(folder / name, rng.normal(0, 0.1, (1, 48_000)).astype(np.float32))
        (folder / name).with_suffix(".txt").write_text(TEXTS[name])
    return folder


def prepare(path, tmp_path, captions=None):
    spec = DatasetSpec(path=path, captions=captions or CaptionSpec(), clip_s=1.0)
    store = Store(tmp_path / "runs" / ".cache")
    return prepare_dataset(spec, AudioFormat(16_000, 1), store, SilentProgress())


def tell(manifest):
    """What training sees of a manifest."""
    return manifest.key, [(track.id, track.split, track.caption) for track in manifest.tracks]


def pack_zip(songs, path):
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(songs.rglob("*.*")):
            packed.write(file, f"inner/{file.relative_to(songs)}")
        packed.writestr("__MACOSX/._a.wav", b"resource fork")


def pack_tar(songs, path):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as packed:
        packed.add(songs, "inner")


def make_table(songs):
    rows = [
        {
            "song": {"bytes": (songs / name).read_bytes(), "path": name},
            "text": TEXTS[name],
            "bpm": 100 + index,
        }
        for index, name in enumerate(NAMES)
    ]
    return pa.Table.from_pylist(rows)


def write_arrow(songs, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, make_table(songs).schema) as writer:
        writer.write_table(make_table(songs), max_chunksize=2)


def write_list(songs, path):
    path.write_text(
        "# my list\n" + "".join(f"{os.path.relpath(songs / name, path.parent)}\n" for name in NAMES)
    )


def write_csv(songs, path):
    path.write_text("file,caption\n" + "".join(f'{songs / name},"{TEXTS[name]}"\n' for name in NAMES))


MAKERS = {
    "songs.zip": pack_zip, "songs.tar": pack_tar, "songs.tar.gz": pack_tar, "songs.arrow": write_arrow,
    "songs.parquet": lambda songs, path: pyarrow.parquet.write_table(make_table(songs), path),
    "songs.txt": write_list, "songs.csv": write_csv,
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_every_source_gives_the_manifest_of_the_folder_with_the_same_captions(songs, tmp_path, name):
    path = tmp_path / "packed" / name
    path.parent.mkdir()
    MAKERS[name](songs, path)
    before = [(file, file.stat().st_mtime_ns, file.stat().st_mode) for file in sorted(songs.rglob("*"))]
    manifest = prepare(path, tmp_path)
    assert tell(manifest) == tell(prepare(songs, tmp_path))
    assert manifest.name == "songs"
    assert count_recordings(path) == (None if name.endswith("gz") else 4)
    assert [
        (file, file.stat().st_mtime_ns, file.stat().st_mode) for file in sorted(songs.rglob("*"))
    ] == before
    assert len(list((tmp_path / "runs" / ".cache" / "sources").glob("*[!k]"))) == 1
    assert tell(prepare(path, tmp_path)) == tell(manifest)


@pytest.mark.parametrize("name", ["songs.zip", "songs.txt", "songs.parquet"])
def test_every_kind_of_source_is_kept_in_one_folder_by_one_version(songs, tmp_path, name, monkeypatch):
    MAKERS[name](songs, tmp_path / name)
    store = Store(tmp_path / ".cache")
    first = locate_folder(tmp_path / name, store, SilentProgress())
    assert first.parent == store.root / "sources"
    assert locate_folder(tmp_path / name, store, SilentProgress()) == first
    monkeypatch.setattr(sources, "SOURCES_VERSION", sources.SOURCES_VERSION + 1)
    second = locate_folder(tmp_path / name, store, SilentProgress())
    assert second != first
    assert second.parent == first.parent


def test_columns_are_fields_of_templates(songs, tmp_path):
    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(make_table(songs).drop_columns(["text"]), path)
    manifest = prepare(path, tmp_path, CaptionSpec(template="song[, {bpm:.0f} bpm]"))
    assert {track.caption for track in manifest.tracks} == {f"song, {100 + index} bpm" for index in range(4)}
    origins = [track.caption_origins["bpm"] for track in manifest.tracks]
    assert all(origin.startswith("columns.csv:") for origin in origins)


def test_the_column_that_the_features_call_audio_is_taken(songs, tmp_path):
    sounds = make_table(songs)["song"]
    pictures = pa.array([{"bytes": b"\x89PNG", "path": "cover.png"}] * 4)
    table = pa.table({"cover": pictures, "song": sounds, "text": list(TEXTS.values())})
    features = {"cover": {"_type": "Image"}, "song": {"_type": "Audio"}, "text": {"_type": "Value"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for index in range(2):
        pyarrow.parquet.write_table(table.slice(2 * index, 2), folder / f"train-{index:05d}-of-00002.parquet")
    (folder.parent / "README.md").write_text("a dataset")
    manifest = prepare(folder.parent, tmp_path)
    assert tell(manifest) == tell(prepare(songs, tmp_path))
    assert sorted(track.source for track in manifest.tracks)[0] == "data/train-00000-of-00002/000000_a.wav"
    assert count_recordings(folder.parent) == 4


def test_shards_of_webdataset_are_read_with_their_sidecars(songs, tmp_path):
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"{shard:06d}.tar", "w") as packed:
            for index, name in enumerate(NAMES[2 * shard : 2 * shard + 2]):
                suffix = name.rpartition(".")[2]
                packed.add(songs / name, f"{index}.{suffix}")  # keys repeat between shards
                packed.add((songs / name).with_suffix(".txt"), f"{index}.txt")
    assert tell(prepare(tmp_path / "shards", tmp_path)) == tell(prepare(songs, tmp_path))


def test_a_folder_with_recordings_and_a_table_is_the_folder(songs, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in NAMES:
        (folder / name.replace("/", "-")).symlink_to(songs / name)
    pyarrow.parquet.write_table(make_table(songs), folder / "features.parquet")
    assert locate_folder(folder, Store(tmp_path / "cache"), SilentProgress()) == folder
    assert not (tmp_path / "cache").exists()


def zip_of(tmp_path, **members):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return path


def refuse(path, tmp_path):
    with pytest.raises(DatasetError) as caught:
        locate_folder(path, Store(tmp_path / "cache"), SilentProgress())
    assert not list((tmp_path / "cache" / "sources").glob("[!.]*[!k]"))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["../evil.wav", "/tmp/evil.wav", "a/../../evil.wav", "C:\\evil.wav", "..\\evil.wav"]
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    assert "leads out of the folder" in refuse(zip_of(tmp_path, **{name: b"x"}), tmp_path)
    assert not list(tmp_path.rglob("evil.wav"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_an_archive_are_refused(tmp_path, kind):
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as packed:
        member = tarfile.TarInfo("a.wav")
        member.type, member.linkname = kind, "/etc/passwd"
        packed.addfile(member)
    assert "is a link or a device" in refuse(path, tmp_path)


def test_a_link_in_a_zip_is_refused(tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as packed:
        member = zipfile.ZipInfo("a.wav")
        member.external_attr = 0o120777 << 16
        packed.writestr(member, "/etc/passwd")
    assert "`a.wav`, which is a link or a device" in refuse(path, tmp_path)


def test_an_archive_that_grows_too_large_stops_there(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacked_folder, "MAX_BYTES", 1 << 20)
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        member = tarfile.TarInfo("a.wav")
        member.size = 5 << 20
        packed.addfile(member, io.BytesIO(bytes(5 << 20)))
    assert path.stat().st_size < 1 << 16
    assert "unpacks to more than" in refuse(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.zip", b"not a zip", "cannot be unpacked (BadZipFile"),
        ("a.tar.gz", b"\x1f\x8b\x08\x00broken", "cannot be unpacked ("),
        ("a.parquet", b"PAR1", "a.parquet cannot be read ("),
        ("a.arrow", b"", "a.arrow cannot be read ("),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    assert message in refuse(tmp_path / name, tmp_path)


def test_a_table_without_sounds_names_its_columns(tmp_path):
    pyarrow.parquet.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "a.parquet")
    assert "has no column of sounds (columns: `text`, `n`)" in refuse(tmp_path / "a.parquet", tmp_path)
    empty = pa.table({"audio": pa.array([{"bytes": None, "path": "gone.wav"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))})  # fmt: skip
    pyarrow.parquet.write_table(empty, tmp_path / "b.parquet")
    assert "row 0: no sound, because its file gone.wav is not there" in refuse(
        tmp_path / "b.parquet", tmp_path
    )


def test_missing_files_of_a_list_are_named_with_their_lines(songs, tmp_path, capsys):
    path = tmp_path / "tracks.txt"
    path.write_text(f"{songs / 'a.wav'}\nnowhere.wav\n\n{songs}\n")
    message = refuse(path, tmp_path)
    assert (
        f"dataset.path: {path}:2: nowhere.wav does not exist; names are relative to the list's folder"
        in message
    )
    assert f"{path}:4: {songs} is not a file" in message
    spec = "schema: 1\ndataset: {path: tracks.txt, captions: {text: a}}\nprompts: [a]\nmetrics: [mfcc20]\n"
    (tmp_path / "spec.yaml").write_text(spec)
    assert main(["validate", str(tmp_path / "spec.yaml")]) == 2
    assert f"{path}:2: nowhere.wav does not exist" in capsys.readouterr().err


def test_a_change_of_a_listed_file_or_an_archive_is_noticed(songs, tmp_path):
    write_list(songs, tmp_path / "songs.txt")
    before = dataset_fingerprint(DatasetSpec(path=tmp_path / "songs.txt"))
    status = (songs / "a.wav").stat()
    os.utime(songs / "a.wav", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert dataset_fingerprint(DatasetSpec(path=tmp_path / "songs.txt")) != before


def test_a_dataset_of_the_hub_that_is_not_cached_is_an_error_with_the_command(tmp_path, capsys):
    text = "schema: 1\ndataset: {path: 'hf:someone/songs@v1', captions: {text: a}}\nprompts: [a]\nmetrics: [mfcc20]\n"
    (tmp_path / "spec.yaml").write_text(text)
    assert (
        main(["inspect", str(tmp_path / "spec.yaml"), "--runs-dir", str(tmp_path / "runs"), "--quiet"]) == 1
    )
    told = capsys.readouterr().err
    assert "dataset.path: hf:someone/songs@v1: not in the cache" in told
    assert "HF_HUB_OFFLINE is set" in told
    assert "`hf download --repo-type dataset someone/songs --revision v1`" in told


@pytest.fixture
def hub(songs, tmp_path, monkeypatch):
    """A hub's cache with two commits of `someone/songs`; the second has other captions. Returns a way to move `main`."""
    fetch = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *names, **options: fetch(*names, cache_dir=tmp_path / "hub", **options)
    )  # fmt: skip
    repository = tmp_path / "hub" / "datasets--someone--songs"
    for commit in FIRST, SECOND:
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        table = make_table(songs)
        if commit == SECOND:
            table = table.set_column(1, "text", pa.array(["other"] * len(NAMES)))
        pyarrow.parquet.write_table(table, snapshot / "train.parquet")
    (repository / "refs").mkdir()

    def move(commit: str) -> None:
        (repository / "refs" / "main").write_text(commit)

    move(FIRST)
    return move


def test_a_dataset_in_the_hubs_cache_is_used(songs, tmp_path, hub):
    manifest = prepare(Path("hf:someone/songs"), tmp_path)
    assert tell(manifest) == tell(prepare(songs, tmp_path))
    assert manifest.name == "songs"


def test_a_run_keeps_the_commit_of_a_dataset_on_the_hub(tmp_path, hub):
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "schema: 1\nmodel: {id: pocket}\ndataset: {path: 'hf:someone/songs', clip_s: 1.0}\nprompts: [a]\n"
        "generation: {clip_s: 1.0}\nmetrics: [mfcc20]\n"
    )
    run = RunFolder(tmp_path / "runs" / "spec")

    def find_path() -> str:
        trial = plan_experiment(load_spec(spec)).trials[0]
        pinned = pin_data(trial, run)
        assert pinned.id == trial.id
        return str(pinned.dataset.path)

    assert find_path() == f"hf:someone/songs@{FIRST}"
    before = prepare(Path(find_path()), tmp_path)
    hub(SECOND)
    assert find_path() == f"hf:someone/songs@{FIRST}"
    assert tell(prepare(Path(find_path()), tmp_path)) == tell(before)
    assert tell(prepare(Path("hf:someone/songs"), tmp_path)) != tell(before)
    run.hub_datasets.unlink()
    assert find_path() == f"hf:someone/songs@{SECOND}"


def test_inspect_takes_an_archive(songs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pack_zip(songs, tmp_path / "songs.zip")
    assert main(["inspect", "songs.zip", "--quiet"]) == 0
    assert "tracks: 4 used, 0 left out" in capsys.readouterr().out
