from __future__ import annotations

from support.fake_trials import Recorder

from lora_bench.progress import track


def test_the_progress_counts_an_item_when_the_next_one_is_asked_for() -> None:
    progress = Recorder()
    items = track(["a", "b"], progress)
    assert (next(items), progress.n_steps) == ("a", 0)
    assert (next(items), progress.n_steps) == ("b", 1)
    assert (list(items), progress.n_steps) == ([], 2)


def test_nothing_is_counted_of_an_item_that_fails() -> None:
    progress = Recorder()
    for item in track([1, 0], progress):
        if item == 0:
            break
    assert progress.n_steps == 1
