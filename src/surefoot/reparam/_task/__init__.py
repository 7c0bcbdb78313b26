"""From a configuration to what a federation trains."""
