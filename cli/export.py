"""`adapters export`: an adapter as ONNX, alone or with its encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def export_command(
    adapter: Annotated[Path, typer.Option(help="The adapter's folder.")] = Path("adapter"),
    model: Annotated[
        str | None,
        typer.Option(help="The encoder to fuse it with: the ONNX file it was trained on, or builtin."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Without --model, for an adapter of several levels: a store with their strides."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to make; an existing one is refused.")] = Path(
        "adapter.onnx"
    ),
) -> None:
    """Write an adapter as ONNX: features in, logits out; with --model, the encoder's window in, logits out.

    The file is written only if its logits agree with the adapter's on a random window. Near the borders of a
    window a fused model differs from `adapters predict`, which blends the features of overlapping windows and
    sees across their borders: overlap windows and blend the logits, or keep the middle of each.
    """
    from adapters.checkpoint import check_encoder, load_adapter
    from adapters.export import export_adapter, export_fused
    from featcache.card_json import card_from_json
    from featcache.store import FeatureStore

    if model is not None and store is not None:
        raise typer.BadParameter("found both; expected --model, or --store", param_hint="--store")
    if model is not None:
        made = export_fused(adapter, model, out)
    elif store is not None:
        root = FeatureStore.open(store).root
        check_encoder(load_adapter(adapter)[1], root.encoder_id, str(root.card.get("name", "")), store)
        made = export_adapter(adapter, out, card=card_from_json(root.card))
    else:
        made = export_adapter(adapter, out)
    about = made.description
    console.say(f"{about['activation']:10} {', '.join(about['classes'])}")
    console.say(f"{'logits':10} on the grid of {about['grid']}, axes {about['axes']}")
    console.say(f"{'difference':10} {made.difference:.2g} of the largest logit, on a random window")
    files = f"{made.path} and {made.data.name}" if made.data is not None else f"{made.path}"
    what = about["encoder_name"] + " with its " if model is not None else ""
    console.say(f"{files}: {what}{about['method']} adapter, opset {made.opset}")
