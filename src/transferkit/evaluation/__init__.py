"""Scores of predictions, how sure they are, and the typed records that hold them."""
