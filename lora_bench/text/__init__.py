"""Text files of users: encodings, lines, JSON, and tables of cells.

files.py   text and JSON in a known encoding, and the lines of a text
tables.py  rows of csv and tsv files by the names in the first row, and lines of JSON
"""
