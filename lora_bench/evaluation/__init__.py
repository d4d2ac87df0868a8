"""Turn clips of a trial, or a plain folder, into scores, reference levels and guards."""
