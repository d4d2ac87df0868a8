"""Run trials in parallel through Ray Tune; the only importer of ray."""
