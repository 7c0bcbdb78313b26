"""One model, three ways to evaluate it: the attention layer itself, its weights, its residuals."""
