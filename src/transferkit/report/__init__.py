"""The report: one self-contained HTML page, a pure function of the typed results."""
