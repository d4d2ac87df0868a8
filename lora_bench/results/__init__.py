"""Gather what the files of a run say, and write it as JSON, CSV and parquet."""
