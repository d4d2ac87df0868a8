"""From a checked spec to its trials, and where their files are.

plan.py         expands an experiment into trials
trial_plan.py   records of the plan
notes.py        remarks that a plan makes
trainings.py    trainings that trials share
sources.py      models and data that trials share
run_folder.py   names of a run's files
"""
