"""Results on disk to something people read: markdown, one-file HTML, plots, CSV, JSON.

`view.py` looks cells up, `sections/` say what there is to say as blocks (`writers/document.py`) in the order of
`contents.py`, and `writers/` write the blocks down; `render.py` does all of it.
Everything comes from the run's files; neither torch nor ray is imported.
"""
