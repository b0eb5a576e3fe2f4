"""HTTP only: limits and decoding of uploads, batching, schema, telemetry, the page."""
