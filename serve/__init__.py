"""The HTTP server: uploads, batching, model processes, telemetry, the demo page."""

if __name__ == "serve":
    raise ImportError("this folder is the package str_app.serve: import it by that name")
