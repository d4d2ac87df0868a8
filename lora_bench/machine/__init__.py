"""This machine, without torch until it is asked for.

gpus.py      the GPUs that torch can use, by one rule for all parts
memory.py    free memory
programs.py  the one place that starts users' programs
"""
