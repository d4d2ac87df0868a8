"""From YAML to a checked experiment.

schema.py       the sections            experiment.py   the whole spec
reading.py      YAML with places        tree.py         values that know their place
parents.py      `extends`               paths.py        relative paths
prompts.py      prompt files            trial_parts.py  variants, axes, ablations
clip_windows.py  of long clips
configuration.py  settings under a name
configurations.py  those that a spec names
tuned_configurations.py  attempts of `tune`, and the chosen values
trajectories.py  kept steps             budgets.py      numbers of parameters
tune.py         section `tune`          rates.py        learning rates by kind
shipped.py      specs by name
fields.py       what a field takes      problems.py     messages
loading.py      all of it: `load_spec`  json_schema.py  for editors
"""

from __future__ import annotations

from lora_bench.spec.experiment import ExperimentSpec, TrialSettings
from lora_bench.spec.loading import LoadedSpec, load_spec

__all__ = ["ExperimentSpec", "LoadedSpec", "TrialSettings", "load_spec"]
