"""For the Python reference: an option's default, and not the call of `option` that declares it."""

from __future__ import annotations

from typing import Any

import griffe


class DeclaredOptions(griffe.Extension):
    """Shows ``batch_size: int = 32`` for ``batch_size: int = option(32, least=1, help=...)``."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called by griffe with each attribute, before it makes signatures of dataclasses."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == "option":
            attr.value = value.arguments[0]
