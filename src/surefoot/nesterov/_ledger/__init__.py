"""The parts of the ledger: its terms, the velocity they need, what they say of the landscape."""
