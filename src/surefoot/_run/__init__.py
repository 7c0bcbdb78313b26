"""How a study is executed, and what a run leaves behind."""
