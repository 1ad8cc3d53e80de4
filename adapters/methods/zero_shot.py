"""The encoder's own head, nothing trained."""

from __future__ import annotations

from adapters.methods.base import FitContext, Fitted, Method
from adapters.methods.heads import own_head
from adapters.model import Adapter
from featcache.errors import TaskError


def fit(context: FitContext) -> Fitted:
    """Return the encoder's head as an adapter.

    Raises
    ------
    TaskError
        If the store has no head, or the head lacks a class.
    """
    if context.head is None:
        raise TaskError(
            "zero-shot needs the encoder's own head, and this store has none: its card names neither an output "
            "of logits nor weights. Train with another --method"
        )
    head = own_head(context.head, context.task, context.channels)
    if head is None:
        raise TaskError(
            f"zero-shot: the encoder's head reads level {context.head.level!r} and knows "
            f"{', '.join(context.head.classes)}; the task asks for {', '.join(context.task.names)} on the levels "
            f"{', '.join(context.channels)}. Map them, as in --classes mine=theirs, or train with another --method"
        )
    return Fitted(Adapter(context.task, head, context.channels))


METHOD = Method("zero-shot", "the encoder's own head, nothing trained", fit, needs_labels=False)
