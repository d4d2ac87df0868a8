"""Analysis of a study: what each axis does, how axes interact, what is worth its cost.

records.py   the result, as plain records: what tables, plots and `study.json` are made from
table.py     the numbers of a run by configuration and training seed, and the grid's axes
fitting.py   least squares with training seeds as blocks
effects.py   main effects, interactions, differences from the baseline
choice.py    Pareto fronts, and the best configuration by a stated rule
analysis.py  all of it: `analyse_study`

Only `results.json` is read.  The uncertainty here is that between training seeds; what all trials share
(references, generation noise) is not in it.
"""

from __future__ import annotations

from lora_bench.study.analysis import analyse_metric, analyse_study, write_study
from lora_bench.study.records import COSTS, Axis, Cost, MetricStudy, ParetoFront, Point, Study

__all__ = [
    "COSTS",
    "Axis",
    "Cost",
    "MetricStudy",
    "ParetoFront",
    "Point",
    "Study",
    "analyse_metric",
    "analyse_study",
    "write_study",
]
