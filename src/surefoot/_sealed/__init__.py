"""Files that say of themselves whether they are what was written."""
