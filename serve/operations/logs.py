"""Log format: JSON or plain text."""

from __future__ import annotations

import json
import logging.config
import sys
import threading
import time
import warnings
from typing import Any

logger = logging.getLogger("str_app.serve")

FIELDS = ("request_id", "method", "route", "status", "ms", "key", "refused", "texts")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """The same as plain text."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name; a traceback follows it
        fields = " ".join(f"{name}={getattr(record, name)}" for name in FIELDS if hasattr(record, name))
        return f"{super().formatMessage(record)} {fields}".rstrip()


def configure_logging(log_format: str, level: str) -> None:
    """Write all logs to stderr in one format: ours, warnings of anyone else, and exceptions that nobody caught."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": JsonFormatter if log_format == "json" else TextFormatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {
                "str_app": {"level": level.upper()},
                # No warnings: every malformed request would write one.
                "uvicorn": {"level": "ERROR"},
                "python_multipart": {"level": "ERROR"},
            },
        }
    )
    logging.captureWarnings(True)
    # Pillow warns of every odd tag of a file, and a file may have thousands.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    sys.excepthook = lambda *exception: logger.critical("uncaught exception", exc_info=exception)
    threading.excepthook = lambda thread: logger.critical("uncaught exception", exc_info=thread.exc_value)
