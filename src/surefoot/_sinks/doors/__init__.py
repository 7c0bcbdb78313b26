"""The clients of the trackers, imported when one is asked for."""
