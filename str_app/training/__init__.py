"""Training: settings, samples, objective, state, and the one loop that joins them."""
