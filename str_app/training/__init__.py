"""Training: settings, samples, objective, optimisers, state, and the training loop."""
