"""The statistics of a verdict: evidence from seeds, and a record's curves against a promised one."""
