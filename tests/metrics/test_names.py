from __future__ import annotations

import pytest

from lora_bench.metrics import ENCODER_NAMES, METRIC_NAMES, parse_metric
from lora_bench.metrics.names import is_higher_better, is_rating


@pytest.mark.parametrize("encoder", ENCODER_NAMES)
def test_bare_encoder_and_fad_prefix_are_the_same_frechet_distance(encoder):
    bare, prefixed = parse_metric(encoder), parse_metric(f"fad/{encoder}")
    assert bare.distance == prefixed.distance == "frechet"
    assert bare.encoder == prefixed.encoder == encoder
    assert prefixed.name == f"fad/{encoder}"


def test_mmd_prefix_is_the_kernel_distance_on_the_same_vectors():
    metric = parse_metric("mmd/vggish")
    assert (metric.encoder, metric.distance, metric.lower_is_better) == ("vggish", "mmd", True)


def test_clap_score_needs_claps_vectors_and_higher_is_better():
    metric = parse_metric("clap_score")
    assert (metric.encoder, metric.distance, metric.lower_is_better) == ("clap", "text", False)


@pytest.mark.parametrize("encoder", ENCODER_NAMES)
@pytest.mark.parametrize(("prefix", "distance"), [("", "frechet"), ("fad/", "frechet"), ("mmd/", "mmd")])
def test_codec_at_the_end_of_a_distance_changes_only_its_references(prefix, distance, encoder):
    name = f"{prefix}{encoder}@codec"
    metric = parse_metric(name)
    assert (metric.name, metric.encoder, metric.distance) == (name, encoder, distance)
    assert metric.codec_matched
    assert metric.lower_is_better
    assert not parse_metric(f"{prefix}{encoder}").codec_matched


def test_the_text_score_has_no_codec_matched_form_and_says_why():
    with pytest.raises(
        ValueError, match=r"`clap_score@codec`; .* the text of their prompt, .* write `clap_score`"
    ):
        parse_metric("clap_score@codec")


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_every_listed_name_is_valid(name):
    assert parse_metric(name).name == name


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("mfc20", "mfcc20"),
        ("FAD/vggish", "fad/vggish"),
        ("clap-score", "clap_score"),
        ("mfcc20_seed", "mfcc20-seed"),
        ("mfcc20@codecs", "mfcc20@codec"),
        ("mmd/encodec@Codec", "mmd/encodec@codec"),
        ("fad/mfcc20-seed_codec", "fad/mfcc20-seed@codec"),
        ("mfcc20@codec@codec", "mfcc20@codec"),
        ("mfcc20@", "mfcc20"),
    ],
)
def test_unknown_metric_names_its_nearest_neighbour_and_all_encoders(wrong, meant):
    with pytest.raises(ValueError, match="unknown metric") as error:
        parse_metric(wrong)
    text = str(error.value)
    assert f"`{wrong}`" in text
    assert f"did you mean `{meant}`" in text
    assert all(name in text for name in ENCODER_NAMES)


def test_metric_like_nothing_known_gets_no_guess():
    with pytest.raises(ValueError, match="known are the encoders") as error:
        parse_metric("zzzzzz")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("name", ["/mfcc20", "/rating", "/clap_score", "/mfcc20@codec", "/", "/@codec"])
def test_nothing_before_the_slash_is_refused_with_the_distances(name):
    with pytest.raises(ValueError, match=rf"^unknown metric `{name}`; nothing precedes the `/`") as error:
        parse_metric(name)
    assert "(`fad`, `mmd`, `mean`, " in str(error.value)


@pytest.mark.parametrize("name", ["mean/", "mmd/", "fad/@codec", "nothing/"])
def test_nothing_after_the_slash_is_refused(name):
    with pytest.raises(
        ValueError, match=rf"^unknown metric `{name}`; nothing follows the `/`; expected an enc"
    ):
        parse_metric(name)


@pytest.mark.parametrize(
    ("name", "rating", "higher"),
    [
        ("mean/audiobox-pq", True, True),
        ("mean/of-a-package-that-is-not-installed", True, True),
        ("clap_score", False, True),
        ("mmd/mfcc20", False, False),
        ("meaning", False, False),
    ],
)
def test_ratings_are_known_by_their_name_alone(name, rating, higher):
    assert (is_rating(name), is_higher_better(name)) == (rating, higher)


@pytest.mark.parametrize("encoder", ["audiobox-ce", "audiobox-cu", "audiobox-pc", "audiobox-pq"])
def test_a_rating_by_name_is_one_by_its_distance(encoder):
    metric = parse_metric(f"mean/{encoder}")
    assert metric.distance == "mean"
    assert is_rating(metric.name)
