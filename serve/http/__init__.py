"""HTTP: routes, uploads, errors, connections."""
