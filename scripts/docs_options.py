"""For the Python reference: shows an option's default instead of the `option` call with it."""

from __future__ import annotations

from typing import Any

import griffe


class DeclaredOptions(griffe.Extension):
    """Shows ``batch_size: int = option(32, least=1, help=...)`` as ``batch_size: int = 32``."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called by griffe for each attribute, before it builds the signatures of dataclasses."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == "option":
            attr.value = value.arguments[0]
