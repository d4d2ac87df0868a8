"""One trial as a supervised job: lock, state, child process, cleanup."""
