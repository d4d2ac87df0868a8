"""The state of a trial in words: each is said once."""

from __future__ import annotations

import pytest

from lora_bench.results.run_records import TrialResult, TrialState
from lora_bench.results.trial_states import explain_state


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("unstarted", "not started", "not started"),
        ("interrupted", "interrupted in stage train", "interrupted in stage train"),
        ("failed", "failed in stage train: loss is NaN", "failed in stage train: loss is NaN"),
        ("failed", "state.json: not JSON", "failed: state.json: not JSON"),
        ("stopped", None, "stopped early"),
        ("missing", "not started", "missing: not started"),  # as an earlier version wrote it
    ],
)
def test_a_state_stands_in_front_of_a_reason_that_does_not_name_it(
    state: TrialState, reason: str | None, words: str
) -> None:
    trial = TrialResult(id="r4", name="r4", configuration="r4", kind="fine-tuned", state=state, reason=reason)
    assert explain_state(trial) == words
