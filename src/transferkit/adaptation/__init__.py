"""Adaptation: which weights train, and what is added to train instead of them."""
