"""HTTP only: limits and decoding of uploads, batching, schema, telemetry, the page."""

if __name__ == "serve":
    raise ImportError("this folder is the package str_app.serve: import it by that name")
