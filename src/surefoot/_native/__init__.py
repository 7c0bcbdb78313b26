"""C for what torch is slow at: compiled on first use, on as many threads as torch has, never required."""
