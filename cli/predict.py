"""`adapters predict`: a store's features -> masks, or scans -> masks through a store that does not stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from cli.options import Device as DeviceOption
from cli.options import Runtime as RuntimeOption
from featcache.errors import AdapterMismatchError, EncoderError, FeatcacheError, StoreError

if TYPE_CHECKING:
    from adapters.segmenter import FittedSegmenter
    from featcache.card import EncoderCard
    from featcache.extraction import ExtractOptions
    from featcache.runtime import Device, Runtime
    from featcache.scans import ScanSource
    from featcache.store import Case, FeatureStore, RootDocument, StoreWriter

_LOCK = "lock"
_ROUNDING = {"store_precision", "calibration", "requantised_from"}  # of a recipe: how features are stored


def predict(
    adapter: Annotated[Path, typer.Option(help="The adapter's folder.")] = Path("adapter"),
    store: Annotated[
        Path | None, typer.Option(help="The feature store; the one in this folder by default.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="In place of --store: the ONNX file that the adapter was trained on, or builtin."),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--in", help="With --model: scans, as `featcache extract` takes them; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the masks.")] = Path("masks"),
    cases: Annotated[str | None, typer.Option(help="Cases of the store, a,b,c; all by default.")] = None,
    largest_component: Annotated[
        bool,
        typer.Option(
            "--largest-component", help="Keep the largest connected piece of each class; masks only."
        ),
    ] = False,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="CASE_probabilities.nii.gz too: (X, Y, Z, class), 8 bit, scaled to read back as 0 to 1.",
        ),
    ] = False,
    preview: Annotated[bool, typer.Option("--preview", help="A PNG per case beside its mask.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that are there.")] = False,
    runtime: RuntimeOption = "onnxruntime",
    device: DeviceOption = "auto",
) -> None:
    """Write a mask per case as .nii.gz with the scan's own shape and affine, and classes.json beside them.

    From the features of a store, or with --model and --in from scans at once: their features go through a
    hidden folder beside --out, one scan's at a time, and do not stay; they are made as those that the adapter was
    trained on (spacing, precision). Scans that need `featcache extract --assume-hu` go through --store.
    Probabilities are in the order of classes.json without background, before --largest-component. Exit code 3:
    some cases failed.
    """
    from adapters.segmenter import FittedSegmenter
    from featcache.store import FeatureStore

    _check_usage(store, model, inputs, cases)
    files = _Files(out, overwrite, probabilities, largest_component, preview)
    if model is not None and inputs is not None:
        where = console.choice("--device", device, ("auto", "cpu", "cuda"))
        failed, count = _from_scans(
            FittedSegmenter.load(adapter, where),
            model,
            inputs,
            files,
            device=where,
            runtime=console.choice("--runtime", runtime, ("onnxruntime", "openvino")),
        )
    else:
        opened = FeatureStore.open(store or FeatureStore.find(Path()))
        wanted = None if cases is None else console.split(cases)
        failed, count = _from_store(FittedSegmenter.load(adapter, device), opened, wanted, files)
    console.say(f"{out}: {count - len(failed)} masks written")
    for case, message in failed.items():
        console.fail(f"{case}: {message}")
    if failed:
        raise typer.Exit(console.EXIT_SOME_FAILED if len(failed) < count else console.EXIT_ERROR)


def _check_usage(
    store: Path | None, model: Path | None, inputs: list[Path] | None, cases: str | None
) -> None:
    if (model is None) != (not inputs):
        alone, other = ("--in", "--model") if model is None else ("--model", "--in")
        raise typer.BadParameter(f"found it without {other}; expected both, or --store", param_hint=alone)
    for option, value in (("--store", store), ("--cases", cases)):
        if model is not None and value is not None:
            raise typer.BadParameter(
                "found it with --model and --in, which take scans; expected one or the other",
                param_hint=option,
            )


@dataclass(frozen=True)
class _Files:
    """What is written, and where."""

    out: Path
    overwrite: bool
    probabilities: bool
    largest_component: bool
    preview: bool

    def prepare(self, classes: dict[str, int], cases: Sequence[str]) -> None:
        """Make the folder and write class names into it; a folder with anything in it is refused."""
        from featcache.scans.masks import PROBABILITIES

        if self.probabilities:
            masks = {f"{case}.nii.gz".casefold() for case in cases}
            taken = masks & {(case + PROBABILITIES).casefold() for case in cases}
            if taken:
                case = min(taken).removesuffix(".nii.gz")
                raise StoreError(
                    f"--probabilities: the mask of case {case!r} and the probabilities of another case would be "
                    "one file; rename the case"
                )
        _prepare_folder(self.out, classes, overwrite=self.overwrite)

    def write(self, fitted: FittedSegmenter, case: Case) -> None:
        """Predict a case and write its files, the mask after its probabilities."""
        from featcache.scans.masks import PROBABILITIES, ProbabilityFile, write_mask

        path, count = self.out / (case.id + PROBABILITIES), len(fitted.adapter.task.classes)
        picture = self.out / f"{case.id}.png"
        for former in (path, picture):  # of a mask that is replaced
            former.unlink(missing_ok=True)
        wanted = ProbabilityFile(path, case.info.native, case.info.codes, count)
        with wanted if self.probabilities else nullcontext() as file:
            result = fitted.predict(
                case,
                largest_component=self.largest_component,
                on_probabilities=None if file is None else file.add,
            )
        write_mask(self.out / f"{case.id}.nii.gz", result.values, result.grid, result.codes)
        if self.preview:
            from adapters.preview import save_preview

            save_preview(picture, case, list(fitted.adapter.channels), result)


def _from_store(
    fitted: FittedSegmenter, store: FeatureStore, cases: list[str] | None, files: _Files
) -> tuple[dict[str, str], int]:
    """Return which cases failed and why, and how many there were."""
    warning = fitted.check(store)
    if warning is not None:
        console.warn(warning)
    wanted = _wanted(store, cases)
    files.prepare(fitted.adapter.task.values, wanted)
    failed = {}
    with console.Steps("predict", "cases") as steps:
        for number, case in enumerate(wanted):
            steps.update(number, len(wanted), case)
            try:
                files.write(fitted, store.case(case))
            except FeatcacheError as error:
                failed[case] = str(error)
    return failed, len(wanted)


def _from_scans(
    fitted: FittedSegmenter,
    model: Path,
    inputs: list[Path],
    files: _Files,
    *,
    device: Device,
    runtime: Runtime,
) -> tuple[dict[str, str], int]:
    """Return which scans failed and why, and how many there were; features stay for one scan at a time."""
    from featcache.encoders import model_path
    from featcache.events import Event
    from featcache.extraction import ExtractOptions, ScanEncoder
    from featcache.onnxfile import read_card
    from featcache.scans import discover
    from featcache.store import FeatureStore

    path = model_path(model)
    card = read_card(path)
    recipe = fitted.info.features
    options = ExtractOptions(runtime=runtime, device=device)
    options = options if recipe is None else options.following(recipe)
    root = _root(fitted, model, path, card, options)
    found = discover(inputs)
    sources = found.sources
    _refuse_scans_in(files.out, sources)
    for note in found.notes:
        if "label" not in note:  # labels are none of this command's business
            console.note(note)
    failed: dict[str, str] = {}
    with _temporary_store(files.out, root) as writer, console.Steps("predict", "cases") as steps:
        show = console.ExtractDisplay(steps)
        features = ScanEncoder(path, card, options, writer=writer, emit=show, recover_head=False)
        _ = features.encoder  # what is wrong with it shows before the folder of masks is made
        files.prepare(fitted.adapter.task.values, [source.case for source in sources])
        for index, source in enumerate(sources, 1):
            position = (index, len(sources))
            try:
                show(Event("start", source.case, str(source.path), *position))
                features.write(source, position)
                steps.update(*position, "segmenting", f"[{index}/{len(sources)}] {source.case}")
                try:
                    files.write(fitted, FeatureStore.open(writer.path).case(source.case))
                finally:
                    writer.remove_case(source.case)
                show(Event("done", source.case, "", *position))
            except FeatcacheError as error:
                # A fault of the encoder itself will meet every scan.
                if isinstance(error, EncoderError) and error.case is None and len(failed) == index - 1:
                    raise
                failed[source.case] = str(error)
                show(Event("fail", source.case, str(error), *position))
    return failed, len(sources)


def _root(
    fitted: FittedSegmenter, model: Path, path: Path, card: EncoderCard, options: ExtractOptions
) -> RootDocument:
    """Return what a store of these features begins with, once encoder and recipe are compared with the adapter's.

    Raises
    ------
    AdapterMismatchError
        If the adapter was trained on another encoder.
    """
    from featcache.onnxfile import encoder_id

    info, identity = fitted.info, encoder_id(path, card)
    if identity != info.encoder_id:
        raise AdapterMismatchError(
            f"--model {model} is encoder {card.name!r} ({identity[:12]}); the adapter was trained on "
            f"{info.encoder_name!r} ({info.encoder_id[:12]}). Give that model with its card, or train an adapter on "
            "features of this one",
            path=path,
        )
    root = options.root(identity, card)
    trained_on = info.features or {}
    differs = {key for key in {*root.recipe, *trained_on} if root.recipe.get(key) != trained_on.get(key)}
    if differs and differs <= _ROUNDING:
        console.note(
            f"the adapter was trained on features stored as {trained_on['store_precision']}; those of --model and --in "
            f"are {root.recipe['store_precision']}, which differ by that rounding alone"
        )
    elif root.recipe_id != info.recipe_id:
        console.warn(
            f"--model {model} makes features by another recipe (windows, spacing or precision) than the features that "
            "the adapter was trained on; masks may be worse. Run `featcache extract` with the options of the "
            "training's store (`featcache info` shows its recipe), then predict with --store"
        )
    return root


@contextmanager
def _temporary_store(out: Path, root: RootDocument) -> Iterator[StoreWriter]:
    """Yield the writer of an empty store in a hidden folder beside --out, which goes whatever happens.

    What a killed run left there goes first.
    """
    from filelock import FileLock, Timeout

    from featcache.store import StoreWriter
    from featcache.store.files import write_errors

    place = out.resolve()
    folder = place.with_name(f".{place.name}.features")
    lock = FileLock(folder / _LOCK, timeout=0)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / _LOCK).is_file():
            raise StoreError(
                f"{folder} holds something else than features of a former run; expected to make it and to remove "
                "it: choose another --out",
                path=folder,
            )
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                f"another `adapters predict` writes to --out {out}; wait until it is done or stop it",
                path=out,
            ) from error
    try:
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        with StoreWriter.open(folder / "features.zarr", root) as writer:
            yield writer
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _refuse_scans_in(out: Path, sources: Sequence[ScanSource]) -> None:
    """Raise StoreError if --out holds scans that are read: a mask has its scan's name."""
    inside = [source.path for source in sources if out.resolve() in source.files[0].resolve().parents]
    if inside:
        raise StoreError(
            f"--out {out} holds {inside[0]}, which --in gives as a scan; masks there would be taken for scans, or "
            "replace them: choose another folder for one of both",
            path=out,
        )


def _wanted(store: FeatureStore, cases: list[str] | None) -> list[str]:
    known = store.cases()
    unknown = sorted(set(cases or ()) - set(known))
    if unknown or not known:
        raise StoreError(f"{store.path} has no cases {unknown}; it holds {', '.join(known[:8]) or 'none'}")
    return list(dict.fromkeys(cases)) if cases else known


def _prepare_folder(out: Path, values: dict[str, int], *, overwrite: bool) -> None:
    """Make the folder and write class names into it; a folder with anything in it is refused."""
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(
            f"--out {out} is there and not empty; choose another folder, or pass --overwrite", path=out
        )
    names = {"background": 0, **values}
    try:
        there = (
            json.loads((out / "classes.json").read_text("utf-8"))
            if (out / "classes.json").exists()
            else names
        )
    except (OSError, ValueError):
        there = None
    if there != names:
        raise StoreError(
            f"--out {out} holds masks of other classes ({there}) than this adapter's ({names}); two kinds of masks in "
            "one folder would be mixed up: choose another folder",
            path=out,
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "classes.json").write_text(json.dumps(names, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise StoreError(f"--out {out} cannot be written: {error}", path=out) from error
