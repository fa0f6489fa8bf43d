"""Answers from a trained run."""
