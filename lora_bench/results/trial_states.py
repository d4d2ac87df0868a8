"""The state of a trial in words, as reports and commands show it."""

from __future__ import annotations

from lora_bench.results.run_records import TrialResult, TrialState

_NAMES: dict[TrialState, str] = {
    "stopped": "stopped early",
    "unstarted": "not started",
    "untried": "not tried",
}


def name_state(state: TrialState) -> str:
    """Return a state in a word or two."""
    return _NAMES.get(state, state)


def explain_state(trial: TrialResult) -> str:
    """Return why a trial is not done, with its state in front where the reason does not begin with it."""
    state, reason = name_state(trial.state), trial.reason
    if not reason:
        return state
    return reason if reason.startswith(state) else f"{state}: {reason}"
