"""One line an event, as logfmt or JSON. No text that a client sent is ever in it."""

from __future__ import annotations

import json
import logging
import time
from typing import Any


def set_up_logging(level: str, *, as_json: bool) -> None:
    """Log to standard error from ``level`` (such as "info") on.

    Of uvicorn's events only warnings and errors: the server tells of its own life.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(as_json))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    if level != "debug":
        logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))


class _Lines(logging.Formatter):
    """``fields`` that came with an event become fields of its line."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{moment}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if self._as_json:
            return json.dumps(fields)
        return " ".join(f"{name}={_logfmt(value)}" for name, value in fields.items())


def _logfmt(value: object) -> str:
    text = str(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "=')
    return text if plain and text else json.dumps(text)
