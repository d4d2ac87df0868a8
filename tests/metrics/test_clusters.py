from __future__ import annotations

import numpy as np
import pytest
from support.embedding_sets import make_embeddings, wrap

from lora_bench.artifacts import Embeddings
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import cluster_embeddings, pool_small_strata, stack_strata, take_clips


def test_vectors_are_sorted_by_track_even_if_its_clips_lie_apart():
    values = np.arange(10.0).reshape(5, 2)
    embeddings = Embeddings(values, np.arange(5), tuple("abcde"), ("t1", "t2", "t1", "t3", "t2"), {})
    clusters = cluster_embeddings(embeddings, "reference")
    assert clusters.by == "group"
    np.testing.assert_array_equal(clusters.sizes, [2, 2, 1])
    np.testing.assert_array_equal(clusters.rows(0), values[[0, 2]])
    np.testing.assert_array_equal(clusters.rows(1), values[[1, 4]])
    np.testing.assert_array_equal(clusters.labels(), [0, 0, 1, 1, 2])
    assert clusters.n_clips == 5


def test_single_track_is_clustered_by_its_clips():
    clusters = cluster_embeddings(make_embeddings(4, 3, 2, clips_per_group=4), "reference")
    assert (clusters.by, clusters.n_clusters) == ("clip", 4)


def test_merged_clusters_hold_every_vector_once():
    clusters = cluster_embeddings(make_embeddings(11, 3, 2), "generated")
    merged = clusters.merge_to(4)
    assert merged.n_clusters == 4
    assert sorted(merged.sizes) == [6, 9, 9, 9]
    np.testing.assert_allclose(np.sort(merged.vectors, axis=0), np.sort(clusters.vectors, axis=0))
    assert clusters.merge_to(11) is clusters


def test_merging_never_mixes_strata():
    both = stack_strata(
        [cluster_embeddings(make_embeddings(6, 1, 2, shift=s), "generated") for s in (0.0, 100.0)]
    )
    merged = both.merge_to(2)
    assert list(merged.strata) == [0, 0, 1, 1]
    for cluster in range(4):
        assert (merged.rows(cluster) > 50.0).all() == (merged.strata[cluster] == 1)


def test_strata_with_too_few_clusters_are_pooled_into_one():
    parts = [cluster_embeddings(make_embeddings(n, 1, 2), "generated") for n in (5, 2)]
    both = stack_strata(parts)
    assert list(np.unique(both.strata)) == [0, 1]
    assert list(np.unique(pool_small_strata(both, 3).strata)) == [0]
    assert pool_small_strata(both, 2) is both


def test_sets_of_different_dimensions_cannot_be_strata_of_one():
    parts = [cluster_embeddings(make_embeddings(3, 1, dim), "generated") for dim in (2, 3)]
    with pytest.raises(ScoreError, match="different dimensions"):
        stack_strata(parts)


def test_taken_clips_keep_their_vectors_in_the_order_asked_for():
    embeddings = make_embeddings(4, 3, 2)
    taken = take_clips(embeddings, [2, 0])
    assert taken.clip_names == taken.groups == ("002", "000")
    np.testing.assert_array_equal(taken.values, embeddings.values[[6, 7, 8, 0, 1, 2]])
    np.testing.assert_array_equal(taken.clip_index, [0, 0, 0, 1, 1, 1])


def test_value_that_is_not_finite_is_reported_with_its_clip():
    values = np.zeros((6, 2))
    values[3, 0] = np.nan
    with pytest.raises(ScoreError, match=r"generated embeddings: 1 of 6 vectors .*first in clip b;.*encoder"):
        cluster_embeddings(wrap(values, 2, names="abc"), "generated")


def test_clip_without_vectors_is_reported_by_name():
    embeddings = Embeddings(np.zeros((2, 2)), np.array([0, 2]), ("a", "b", "c"), ("a", "b", "c"), {})
    with pytest.raises(ScoreError, match="clip b has no vector"):
        cluster_embeddings(embeddings, "generated")


@pytest.mark.parametrize("index", [[1, 0, 2], [0, 1, 3]])
def test_clip_index_that_does_not_ascend_within_the_clips_is_refused(index):
    embeddings = Embeddings(np.zeros((3, 2)), np.array(index), ("a", "b", "c"), ("a", "b", "c"), {})
    with pytest.raises(ScoreError, match="clip_index must ascend from 0 to 2"):
        cluster_embeddings(embeddings, "generated")


def test_arrays_of_different_lengths_are_refused_with_their_lengths():
    embeddings = Embeddings(np.zeros((3, 2)), np.array([0, 1]), ("a", "b"), ("a", "b"), {})
    with pytest.raises(ScoreError, match="3 vectors, 2 clip indices, 2 clip names and 2 groups"):
        cluster_embeddings(embeddings, "generated")


def test_single_vector_has_no_distance():
    with pytest.raises(UnscoredError, match="needs at least 2"):
        cluster_embeddings(wrap(np.zeros((1, 2))), "generated")
