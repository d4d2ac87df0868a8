from __future__ import annotations

import re

import pytest

from lora_bench.errors import NoModulesMatchedError
from lora_bench.models.targets import count_by_group, resolve_targets

PREFIX = "decoder.model.decoder.layers"
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
NAMES = (
    *(
        f"{PREFIX}.{n}.{kind}.{leaf}"
        for n in (0, 1, 10)
        for kind in ("self_attn", "encoder_attn")
        for leaf in ATTENTION
    ),
    *(f"{PREFIX}.{n}.{leaf}" for n in (0, 1, 10) for leaf in ("fc1", "fc2")),
    *(f"decoder.lm_heads.{k}" for k in range(4)),
    "enc_to_dec_proj",
)


@pytest.mark.parametrize(
    ("targets", "counts"),
    [
        ("self_attention", {"self_attention": 12}),
        ("cross_attention", {"cross_attention": 12}),
        ("attention", {"self_attention": 12, "cross_attention": 12}),
        ("ffn", {"ffn": 6}),
        ("heads", {"heads": 4}),
        ("conditioning", {"conditioning": 1}),
        ("attention+ffn", {"self_attention": 12, "cross_attention": 12, "ffn": 6}),
        ("heads + conditioning", {"heads": 4, "conditioning": 1}),
        ("all", {"self_attention": 12, "cross_attention": 12, "ffn": 6, "heads": 4, "conditioning": 1}),
    ],
)
def test_a_group_means_all_its_modules_and_no_other(targets: str, counts: dict[str, int]) -> None:
    matched = resolve_targets(targets, NAMES)
    assert count_by_group(matched) == counts
    assert len(matched) == len(set(matched)) == sum(counts.values())


def test_groups_are_disjoint_and_cover_every_module() -> None:
    assert sum(count_by_group(NAMES).values()) == len(NAMES)
    assert "other" not in count_by_group(NAMES)


def test_a_leaf_name_matches_self_and_cross_attention_and_the_counts_tell_them_apart() -> None:
    assert count_by_group(resolve_targets(["q_proj"], NAMES)) == {"self_attention": 3, "cross_attention": 3}
    assert count_by_group(resolve_targets(["self_attn.q_proj"], NAMES)) == {"self_attention": 3}


def test_a_layer_number_matches_that_layer_only() -> None:
    matched = resolve_targets(["layers.1"], NAMES)
    assert len(matched) == 10
    assert all(".layers.1." in name for name in matched)


def test_a_list_mixes_full_names_groups_and_containers() -> None:
    full = f"{PREFIX}.0.fc1"
    assert resolve_targets([full], NAMES) == (full,)
    assert count_by_group(resolve_targets([full, "conditioning", "lm_heads"], NAMES)) == {
        "ffn": 1,
        "heads": 4,
        "conditioning": 1,
    }


def test_a_regular_expression_must_match_the_whole_name() -> None:
    assert len(resolve_targets(r"re:.*layers\.(0|1)\.fc1", NAMES)) == 2
    with pytest.raises(
        NoModulesMatchedError, match=r"the expression must match the whole name, begin it with `\.\*`"
    ):
        resolve_targets("re:fc1", NAMES)


def test_a_pattern_may_hold_a_plus_sign() -> None:
    assert len(resolve_targets(r"re:.*\.layers\.\d+\.fc2", NAMES)) == 3


def test_a_broken_pattern_is_named() -> None:
    with pytest.raises(NoModulesMatchedError, match="is not a regular expression"):
        resolve_targets("re:(", NAMES)


@pytest.mark.parametrize(
    "targets", ["in_proj_weight", "attention+nothing", ["fc1", "fc3"], "SelfAttention.q", ""]
)
def test_a_term_that_matches_nothing_is_an_error_that_lists_what_exists(targets: str | list[str]) -> None:
    with pytest.raises(NoModulesMatchedError) as caught:
        resolve_targets(targets, NAMES)
    message = str(caught.value)
    assert "self_attention (12), cross_attention (12), ffn (6), heads (4), conditioning (1)" in message
    assert "decoder.model.decoder.layers.*.self_attn.q_proj" in message
    assert re.search(r"'(in_proj_weight|nothing|fc3|SelfAttention\.q|)' matches no module", message)
