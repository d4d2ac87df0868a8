from __future__ import annotations

import pytest

from lora_bench.metrics import ENCODER_NAMES, METRIC_NAMES, parse_metric


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
