"""Analysis of a study: the effect of each axis, interactions, and quality against cost.

records.py   the result as records, from which tables, plots and `study.json` are made
table.py     the scores of a run by configuration and training seed, and the grid's axes
fitting.py   least squares with training seeds as blocks
effects.py   main effects and interactions
choice.py    Pareto fronts, and the best configuration by a stated rule
analysis.py  the whole analysis: `analyse_study`

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
