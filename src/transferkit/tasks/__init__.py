"""What is learnt: how a batch becomes a loss."""
