"""Several ways to adapt, side by side on the same rows."""
