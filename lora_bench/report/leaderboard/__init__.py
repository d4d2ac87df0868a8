"""The overview of a folder of runs, and which of their scores compare."""
