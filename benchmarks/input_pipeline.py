"""Batches of canvases from JPEG files: our pipeline, PyTorch's DataLoader, and the decoder alone.

    python benchmarks/input_pipeline.py [--steps=10] [--small] [--page=FILE]

Generated textures of 512 pixels, as JPEGs in a temporary folder, become batches of 32 canvases of 224 pixels, shuffled.
One call reads the same number of batches on every side. "decoder" reads and decodes files to at least the canvas's
size, on as many threads as the pipeline has; "decoder and canvas" resizes too, which is all that the pipeline does with
a picture. The DataLoader decodes with Pillow, as is usual, or with our decoder; without workers it has one thread. Its
workers stay between calls, ours start with each.
"""

import concurrent.futures
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from side_by_side import Comparison, Page, Settings, launch

from emokd.benchmarking.timing import ratio
from emokd.data import sources
from emokd.data.decode import read_file, to_canvas
from emokd.data.examples import Examples
from emokd.data.pipeline import train_batches
from emokd.reporting.table import Table

CANVAS, THREADS, WORKERS = 224, 2, (0, 2)
REST = 0.5
"""Seconds between calls, in which the batches that a pipeline has read ahead come to an end."""


def write_pictures(folder: pathlib.Path, count: int, side: int) -> list[str]:
    """Writes JPEGs of smooth noise in two classes, from 3 to 96 waves across; gives their paths in order."""
    rng, paths = np.random.default_rng(0), []
    for index in range(count):
        layers = []
        for waves in (3, 12, 48, 96):
            noise = Image.fromarray(rng.integers(0, 256, (waves, waves, 3), dtype=np.uint8))
            layers.append(np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), np.float32))
        pixels = np.average(layers, axis=0, weights=(4, 2, 1, 1)).astype(np.uint8)
        path = folder / f"class{index % 2}" / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
        paths.append(str(path))
    return sorted(paths)


def create_pipeline(examples: Examples, batch_size: int, batches: int) -> Callable[[], list[np.ndarray]]:
    """Reads batches as training does."""

    def call():
        stream = train_batches(examples, batch_size=batch_size, seed=0, canvas=CANVAS, fit="crop", num_threads=THREADS)
        return [batch["image"] for batch in itertools.islice(stream, batches)]

    return call


def create_decoder(paths: Sequence[str], count: int, canvas: bool) -> Callable[[], int]:
    """Decodes files on as many threads, and keeps nothing."""
    order = list(itertools.islice(itertools.cycle(paths), count))

    def one(path: str) -> int:
        pixels = read_file(path, CANVAS)
        return (to_canvas(pixels, CANVAS) if canvas else pixels).size

    def call():
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            return sum(pool.map(one, order))

    return call


def create_loader(
    paths: Sequence[str], batch_size: int, batches: int, pillow: bool, workers: int
) -> Callable[[], list[np.ndarray]]:
    """Reads one epoch of `batches` batches with PyTorch's DataLoader."""
    import torch
    from torch_pictures import Pictures

    chosen = list(itertools.islice(itertools.cycle(paths), batches * batch_size))
    options = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}
    loader = torch.utils.data.DataLoader(
        Pictures(chosen, CANVAS, pillow), batch_size, shuffle=True, num_workers=workers, **options
    )
    return lambda: [batch.numpy() for batch in loader]


def measure(settings: Settings) -> Page:
    """All sides on the same files."""
    count, batch_size, batches = (8, 4, 2) if settings.small else (512, 32, 16)
    sides = Comparison()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(pathlib.Path(folder), count, 512)
        size = sum(pathlib.Path(path).stat().st_size for path in paths) / count
        examples = sources.load("image_folder", folder, {}, min_side=CANVAS)
        for name, canvas in (("decoder", False), ("decoder and canvas", True)):
            sides.add(name, functools.partial(create_decoder, paths, batches * batch_size, canvas))
        sides.add("emokd", functools.partial(create_pipeline, examples, batch_size, batches))
        for pillow, workers in itertools.product((True, False), WORKERS):
            name = f"PyTorch DataLoader, {'Pillow' if pillow else 'our decoder'}, {workers} workers"
            make = functools.partial(create_loader, paths, batch_size, batches, pillow, workers)
            sides.attempt(name, make)
        times = sides.measure(settings)
    rows = []
    for name in sides.order:
        if name in sides.reasons:
            rows.append([sides.missing(name), *["-"] * 4])
            continue
        # Speeds: the other way round than times.
        speeds = [f"{ratio(times[base], times[name]):.3f}" for base in ("decoder", "decoder and canvas", "emokd")]
        rows.append([name, f"{batches * batch_size / times[name].median:.0f}", *speeds])
    header = ["side", "pictures/s", "of decoder", "of decoder and canvas", "of emokd"]
    data = f"{count} JPEGs of 512 x 512, {size / 1024:.0f} KiB on average, from the page cache"
    facts = {"data": data, "batches": f"{batches} of {batch_size} a call", "threads of emokd": str(THREADS)}
    return Page("Input pipeline", [Table(header, rows, title="Speed")], facts)


if __name__ == "__main__":
    launch(measure, steps=10, rest=REST)
