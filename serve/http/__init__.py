"""HTTP: endpoints, uploads, errors, connections."""
