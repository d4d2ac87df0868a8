"""The bundle for a paper: LaTeX of tables, figures and methods, references, and an archive of the numbers.

latex.py         text and tables
tikz.py          figures
methods.py       the methods section
references.py    BibTeX of the models, metrics and software that a run used
archive.py       the files that a report is rebuilt from, with checksums
bundle.py        the folder
"""
