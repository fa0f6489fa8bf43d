"""From a named source to clean, labelled, memory-mapped splits."""
