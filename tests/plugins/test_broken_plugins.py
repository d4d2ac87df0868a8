"""Plug-ins that do not work: named with their package, and nothing else is harmed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import BaseModel, ValidationError
from scipy.spatial.distance import cdist

from lora_bench import plugins
from lora_bench.artifacts import AudioFormat, Embeddings
from lora_bench.cli.commands.doctor import look_at_plugins
from lora_bench.cli.main import main
from lora_bench.errors import DatasetError, SpecError, UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.metrics.names import is_higher_better
from lora_bench.progress import SilentProgress
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset import prepare_dataset, sources
from lora_bench.stages.score import replicate_score, score_embeddings, score_pooled
from lora_bench.store import Store


class Mean:
    """Squared distance of the means: biased by about D/n, as the jackknife knows."""

    class Settings(BaseModel):
        scale: float = 1.0

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def measure(self, generated: np.ndarray, reference: np.ndarray) -> float:
        return self.settings.scale * float(((generated.mean(axis=0) - reference.mean(axis=0)) ** 2).sum())


class Frechet(Mean):
    def measure(self, generated: np.ndarray, reference: np.ndarray) -> float:
        return frechet_distance(generated, reference)


class Nothing(Mean):
    def measure(self, generated: np.ndarray, reference: np.ndarray) -> float:
        return float("nan")


class Fails(Mean):
    def measure(self, generated: np.ndarray, reference: np.ndarray) -> float:
        raise KeyError("no such norm")


class Empty:
    pass


class Words:
    sample_rate_hz = 8000
    answers: Any = staticmethod(lambda tracks: ["a song" for _ in tracks])

    def __init__(self, settings: Any, device: str) -> None:
        pass

    def caption(self, tracks: list[np.ndarray]) -> Any:
        return type(self).answers(tracks)


class Songs:
    made: Any = ()

    def __init__(self, settings: Any) -> None:
        pass

    def tracks(self) -> Any:
        yield from type(self).made


KINDS = {
    "distances": {"means": "Mean", "own-frechet": "Frechet", "nothing": "Nothing", "fails": "Fails", "empty": "Empty",
                  "frechet": "Mean", "mmd": "Mean"},
    "encoders": {"stars": "Words"},
    "captioners": {"words": "Words", "empty": "Empty"},
    "sources": {"songs": "Songs", "empty": "Empty"},
}  # fmt: skip
NOISE = [
    {"name": f"{i}", "audio": np.random.default_rng(i).normal(0, 0.1, 16_000), "sample_rate_hz": 8000}
    for i in range(4)
]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "toy_package", SimpleNamespace(**globals()))
    points = [
        EntryPoint(name, f"toy_package:{target}", f"lora_bench.{kind}")
        for kind, targets in KINDS.items()
        for name, target in targets.items()
    ]
    points += [EntryPoint("gone", "no_such_package:Thing", f"lora_bench.{kind}") for kind in KINDS]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [p for p in points if p.group == group])
    plugins.list_plugins.cache_clear()
    yield
    plugins.list_plugins.cache_clear()


def make_set(n: int, seed: int, shift: float = 0.0, dim: int = 3) -> Embeddings:
    values = np.random.default_rng(seed).normal(shift, 1.0, (n, dim)).astype(np.float32)
    names = tuple(f"c{i}" for i in range(n))
    return Embeddings(values, np.arange(n), names, names, {"encoder": "mfcc20"})


def test_leaving_out_by_calls_gives_the_intervals_of_the_built_in_distance() -> None:
    ours, theirs = make_set(40, 0), make_set(30, 1, shift=0.5)
    own = score_embeddings(parse_metric("own-frechet/mfcc20"), ours, theirs)
    known = score_embeddings(parse_metric("mfcc20"), ours, theirs)
    for field in ("value", "corrected", "se", "ci_low", "ci_high"):
        assert getattr(own, field) == pytest.approx(getattr(known, field), rel=1e-6)


def test_the_interval_of_the_documented_kind_of_bias_holds_the_truth() -> None:
    metric, hits, centres = parse_metric("means/mfcc20"), 0, []
    for seed in range(60):
        found = score_embeddings(metric, make_set(20, seed), make_set(20, 1000 + seed, shift=1.0))
        assert found.corrected is not None
        assert found.corrected < found.value
        centres.append(found.corrected)
        hits += found.ci_low <= 3.0 <= found.ci_high
    assert hits >= 52
    assert np.mean(centres) == pytest.approx(3.0, abs=0.4)


def test_prompts_are_strata_and_settings_change_the_score() -> None:
    sets = [make_set(12, 0), make_set(12, 1, shift=2.0)]
    metric = parse_metric("means/mfcc20", {"means": {"scale": 2.0}})
    found = score_pooled(metric, sets, make_set(20, 2))
    plain = score_pooled(parse_metric("means/mfcc20"), sets, make_set(20, 2))
    assert found.value == pytest.approx(2.0 * plain.value)
    assert found.se == pytest.approx(2.0 * plain.se)
    replicates, _, _ = replicate_score(metric, sets, make_set(20, 2))
    assert set(replicates.parts["clips"].strata) == {0, 1}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", r"gone: the plug-in of no_such_package:Thing cannot be loaded \(ModuleNotFoundError"),
        (
            "empty",
            r"empty: the plug-in of toy_package:Empty cannot be loaded \(TypeError: it has no method `measure`",
        ),
        ("fails", r"fails: the plug-in of toy_package:Fails failed \(KeyError: 'no such norm'\)"),
        ("nothing", "nothing: the plug-in of toy_package:Nothing returned nan; expected a finite number"),
    ],
)
def test_a_broken_distance_is_unscored_by_name(name: str, words: str) -> None:
    with pytest.raises(UnscoredError, match=words):
        score_embeddings(parse_metric(f"{name}/mfcc20"), make_set(6, 0), make_set(6, 1))


def test_a_rating_is_the_mean_of_clips_higher_is_better_and_needs_no_references() -> None:
    metric = parse_metric("mean/stars")
    rated = [
        replace(make_set(12, seed, dim=1), provenance={"encoder": "stars", "higher_is_better": 1})
        for seed in (0, 1)
    ]
    score = score_pooled(metric, rated, rated[0])
    values = np.concatenate([part.values for part in rated]).astype(np.float64)
    assert score.value == score.corrected == pytest.approx(values.mean())
    assert score.ci_low < score.value < score.ci_high
    assert score.n_reference == 0
    replicates, _, _ = replicate_score(metric, rated, rated[0])
    assert replicates.parts.keys() == {"clips"}
    assert is_higher_better("mean/stars")
    assert not metric.lower_is_better
    assert not metric.has_references
    wide = replace(make_set(6, 0), provenance={"encoder": "stars", "higher_is_better": 1})
    with pytest.raises(UnscoredError, match="3 values per clip; expected one, a rating"):
        score_embeddings(metric, wide, wide)


def test_bins_are_prepared_once_for_the_whole_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def prepare(self: Any, generated: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(generated))
        return generated[:, :1], reference[:, :1]

    monkeypatch.setattr(Mean, "prepare", prepare, raising=False)
    found = score_embeddings(parse_metric("means/mfcc20"), make_set(8, 0), make_set(8, 1))
    monkeypatch.delattr(Mean, "prepare")
    one, other = (replace(part, values=part.values[:, :1]) for part in (make_set(8, 0), make_set(8, 1)))
    assert found.value == pytest.approx(score_embeddings(parse_metric("means/mfcc20"), one, other).value)
    assert calls == [8]
    monkeypatch.setattr(Mean, "prepare", lambda self, one, other: (one[1:], other), raising=False)
    with pytest.raises(
        UnscoredError, match="`prepare` returned 7 and 8 vectors for 8 and 8; expected as many"
    ):
        score_embeddings(parse_metric("means/mfcc20"), make_set(8, 0), make_set(8, 1))


@pytest.mark.parametrize("rounding", [0.0, 1e-15])
def test_a_number_that_nothing_changes_has_no_interval(
    rounding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mean, "measure", lambda self, one, other: 3.0 + rounding * (12 - len(one)))
    found = score_embeddings(parse_metric("means/mfcc20"), make_set(12, 0), make_set(12, 1))
    assert (found.value, found.ci_low, found.corrected) == (3.0, None, None)
    assert "gives the same number, so its error is not known" in str(found.note)


def test_a_distance_cannot_take_a_built_in_name_and_its_settings_are_checked() -> None:
    assert parse_metric("mmd/mfcc20").distance == "mmd"
    with pytest.raises(ValueError, match=r"unknown metric `frechet/mfcc20`.*means/<encoder>"):
        parse_metric("frechet/mfcc20")
    wrong = parse_metric("means/mfcc20", {"means": {"scale": "large"}})
    with pytest.raises(SpecError, match=r"distances\.means\.scale: input should be a valid number"):
        score_embeddings(wrong, make_set(6, 0), make_set(6, 1))
    base = {
        "schema": 1,
        "name": "t",
        "dataset": {"builtin": "chiptune"},
        "prompts": ["a"],
        "metrics": ["mfcc20"],
    }
    for name, words in (
        ("means", "describes no plug-in that `metrics` names"),
        ("frechet", "is built in and has no settings"),
    ):
        with pytest.raises(ValidationError, match=rf"distances\.{name} {words}"):
            ExperimentSpec.model_validate(base | {"distances": {name: {}}})


def prepare(tmp_path: Path, **changes: Any) -> Any:
    spec = DatasetSpec.model_validate({"path": Path("plugin:songs"), "clip_s": 1.0, **changes})
    return prepare_dataset(spec, AudioFormat(8000, 1), Store(tmp_path / ".cache"), SilentProgress())


@pytest.mark.parametrize(
    ("path", "made", "words"),
    [
        (
            "plugin:nowhere",
            (),
            "`plugin:nowhere` is offered by no installed package; expected one of plugin:",
        ),
        ("plugin:gone", (), r"plugin:gone: the plug-in of no_such_package:Thing cannot be loaded"),
        ("plugin:empty", (), "has no method `tracks`"),
        (
            "plugin:songs",
            [3],
            r"plugin:songs: the plug-in of toy_package:Songs failed \(TypeError: a track is a int",
        ),
        ("plugin:songs", [{"name": "a"}], "gives track a.wav with neither `file` nor `audio`"),
        ("plugin:songs", [{**NOISE[0], "audio": np.zeros((2, 2, 2))}], r"audio of shape \(2, 2, 2\)"),
        ("plugin:songs", [{**NOISE[0], "audio": np.full(99, np.nan)}], "NaN or infinite"),
        ("plugin:songs", [{**NOISE[0], "name": "../../a"}], "leads out of the folder"),
        ("plugin:songs", [{"file": "/nowhere/a.wav"}], "gives `/nowhere/a.wav`, which cannot be read"),
        ("plugin:songs", [NOISE[0], NOISE[0]], "twice"),
        ("plugin:songs", (), "0 usable tracks"),
    ],
)
def test_a_broken_source_is_refused_by_name(
    path: str, made: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Songs, "made", made)
    with pytest.raises(DatasetError, match=words):
        prepare(tmp_path, path=Path(path), captions={"text": "a"})
    assert not list((tmp_path / ".cache").glob("sources/*/*.wav"))


def test_tracks_of_a_source_are_kept_where_those_of_other_sources_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Songs, "made", NOISE)
    store, path = Store(tmp_path / ".cache"), Path("plugin:songs")
    first = sources.locate_folder(path, store, SilentProgress())
    assert first.parent == store.root / "sources"
    monkeypatch.setattr(sources, "SOURCES_VERSION", sources.SOURCES_VERSION + 1)
    assert sources.locate_folder(path, store, SilentProgress()) not in {first, None}


def test_a_source_may_give_files_which_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, track in enumerate(NOISE):
        soundfile.write(tmp_path / f"{index}.wav", track["audio"], 8000)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.wav")}
    monkeypatch.setattr(
        Songs, "made", [{"file": path, "caption": "x"} for path in sorted(tmp_path.glob("*.wav"))]
    )
    assert {track.source for track in prepare(tmp_path).tracks} == before.keys()
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.wav")} == before


@pytest.mark.parametrize(
    ("name", "answers", "words"),
    [
        (
            "nobody",
            None,
            "captioner: `nobody` is offered by no installed package; expected one of empty, gone, words",
        ),
        ("gone", None, "captioner: gone: the plug-in of no_such_package:Thing cannot be loaded"),
        ("empty", None, "has no method `caption`"),
        ("words", lambda tracks: ["one"], "returned 1 answers for 4 tracks; expected one each"),
        ("words", lambda tracks: ["" for _ in tracks], "returned '' for 0.wav; expected a caption"),
        (
            "words",
            lambda tracks: ["\ud83d" for _ in tracks],
            "captioner: words: the plug-in of toy_package:Words returned for 0.wav what cannot be a caption: .*surrog",
        ),
        (
            "words",
            lambda tracks: 1 / 0,
            r"captioner: words: the plug-in of toy_package:Words failed \(ZeroDivision",
        ),
    ],
)
def test_a_broken_captioner_is_refused_by_name(
    name: str, answers: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Songs, "made", NOISE)
    if answers is not None:
        monkeypatch.setattr(Words, "answers", staticmethod(answers))
    with pytest.raises(DatasetError, match=words):
        prepare(tmp_path, captions={"captioner": name})


@pytest.mark.parametrize(
    ("attribute", "value"), [("provenance", 3), ("sample_rate_hz", "many"), ("sample_rate_hz", None)]
)
def test_a_captioner_with_wrong_attributes_is_refused_by_name(
    attribute: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Songs, "made", NOISE)
    monkeypatch.setattr(Words, attribute, value, raising=False)
    with pytest.raises(
        DatasetError, match="captioner: words: the plug-in of toy_package:Words cannot be loaded"
    ):
        prepare(tmp_path, captions={"captioner": "words"})


def test_a_source_with_wrong_provenance_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Songs, "provenance", 3, raising=False)
    with pytest.raises(DatasetError, match="plugin:songs: the plug-in of toy_package:Songs cannot be loaded"):
        prepare(tmp_path)


def test_kept_answers_of_a_captioner_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Songs, "made", NOISE)
    logged: list[str] = []
    monkeypatch.setattr(SilentProgress, "log", lambda self, text: logged.append(text))
    first = prepare(tmp_path, captions={"captioner": "words"})
    assert not any("kept" in line for line in logged)
    assert prepare(tmp_path, captions={"captioner": "words"}) == first
    note = "captions: answers of captioner words, toy_package:Words about 4 of 4 tracks are kept ones"
    assert logged.count(note) == 1


def test_a_captioner_gives_fields_to_a_template_and_written_captions_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Songs, "made", [{**track, "mood": "calm"} for track in NOISE])
    monkeypatch.setattr(
        Words, "answers", staticmethod(lambda tracks: [{"mood": "wild", "bpm": 90}] * len(tracks))
    )
    manifest = prepare(tmp_path, captions={"captioner": "words", "template": "{mood}, {bpm:.0f} bpm"})
    assert {track.caption for track in manifest.tracks} == {"calm, 90 bpm"}


def test_validate_tells_of_wrong_plugins_and_settings_at_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        "schema: 1\nmodel: {id: pocket}\nprompts: [a]\nmetrics: [mfcc20]\ndataset:\n  path: plugin:songs\n"
        "  source_settings: {n: 3}\n  captions:\n    captioner: nobody\n"
    )
    assert main(["validate", str(file)]) == 2
    told = capsys.readouterr().err
    assert "spec.yaml:6:9: dataset.source_settings.n: extra inputs are not permitted" in told
    assert "spec.yaml:9:16: dataset.captions.captioner: `nobody` is offered by no installed package" in told


def test_settings_without_a_plugin_are_refused() -> None:
    with pytest.raises(ValidationError, match="`source_settings` are those of a plug-in"):
        DatasetSpec.model_validate({"path": Path("music"), "source_settings": {"n": 1}})
    with pytest.raises(ValidationError, match="`captioner_settings` are those of `captioner`"):
        CaptionSpec.model_validate({"captioner_settings": {"n": 1}})


def test_doctor_says_what_is_wrong_with_each() -> None:
    found = {(item.topic, item.name): item for item in look_at_plugins()}
    assert found["distances", "means"].ok
    assert found["sources", "songs"].ok
    for key in (("distances", "gone"), ("captioners", "empty"), ("sources", "gone")):
        assert found[key].ok is False
        assert "cannot be loaded" in found[key].mend


def test_the_energy_distance_of_the_documentation_is_that_of_its_definition() -> None:
    from support.installed_package import read_documented_package

    space: dict[str, Any] = {}
    exec(read_documented_package()[1], space)
    one, other = make_set(9, 0).values, make_set(7, 1).values
    found = space["Energy"](space["Energy"].Settings()).measure(one, other)
    assert found == pytest.approx(
        2 * cdist(one, other).mean() - cdist(one, one).mean() - cdist(other, other).mean()
    )
