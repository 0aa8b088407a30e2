"""What is generated from records and figures: the claims of a run, the README's tables, the index of figures, a run's report."""
