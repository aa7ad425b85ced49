"""Whether `predict` keeps its memory flat over many pictures and a long video.

    python benchmarks/long_use.py [--pictures=10000] [--minutes=60] [--page=FILE]

The model is a small network with random weights. The pictures are painted faces of 64 pixels, each in a file of its
own; the video shows a hundred of them in turn, 64 pixels and 10 frames a second. The command is a process of its own,
of which Linux is asked ten times a second; the table has a row for each tenth of its time, with what it holds then.
"""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile
import time
from fractions import Fraction

import av
import jax
import numpy as np
from absl import app, flags
from PIL import Image

from emokd.data import sources
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.reporting.provenance import provenance
from emokd.reporting.table import Table
from emokd.weights import model_folder

SIZE = 64
RATE = 10
ROWS = 10


@dataclasses.dataclass(frozen=True)
class Look:
    """What a process holds at a moment.

    Attributes:
      seconds: since it began.
      resident: MiB.
      threads: of the process.
      files: open ones.
    """

    seconds: float
    resident: float
    threads: int
    files: int


def make_model(folder: pathlib.Path, classes: tuple[str, ...]) -> None:
    """A small network with random weights."""
    spec = NetworkSpec(
        "basic_cnn",
        {"width": 4, "size": SIZE},
        {"expression": len(classes)},
        {"expression": classes},
        Preprocessing(SIZE),
    )
    model_folder.save_model(folder, spec, *functional(spec).init(jax.random.key(0)), {"source": "random"})


def make_pictures(folder: pathlib.Path, faces: list[np.ndarray], count: int) -> None:
    """So many PNG files of the faces, no two of the same bytes."""
    folder.mkdir()
    for number in range(count):
        picture = faces[number % len(faces)].copy()
        picture[0, :3] = [(number >> shift) & 255 for shift in (0, 8, 16)]
        Image.fromarray(picture).save(folder / f"{number:06d}.png", compress_level=1)


def make_video(file: pathlib.Path, faces: list[np.ndarray], minutes: int) -> None:
    """The faces in turn, a second each."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width = stream.height = SIZE
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, RATE)
        for number in range(minutes * 60 * RATE):
            frame = av.VideoFrame.from_ndarray(faces[number // RATE % len(faces)], format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def watch(arguments: list[str]) -> list[Look]:
    """Runs `predict`, and looks at it ten times a second.

    Raises:
      RuntimeError: it failed.
    """
    begun, looks = time.perf_counter(), []
    process = subprocess.Popen([sys.executable, "-m", "emokd.predict", *arguments])
    while process.poll() is None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in status if ":" in line)
        if "VmRSS" in fields:  # it has ended, but nobody has asked yet
            resident, threads = int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"])
            files = len(list(pathlib.Path(f"/proc/{process.pid}/fd").iterdir()))
            looks.append(Look(time.perf_counter() - begun, resident, threads, files))
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"predict ended with exit code {process.returncode}.")
    return looks


def page(title: str, looks: list[Look]) -> str:
    """A row for each tenth of the time, and the largest of all looks."""
    chosen = [looks[len(looks) * tenth // ROWS - 1] for tenth in range(1, ROWS + 1)]
    rows = [[f"{x.seconds:.0f}", f"{x.resident:.0f}", f"{x.threads}", f"{x.files}"] for x in chosen]
    table = Table([f"seconds, {title}", "resident MiB", "threads", "open files"], rows).markdown()
    return f"{table}\nAt most {max(x.resident for x in looks):.0f} MiB.\n"


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    settings = flags.FLAGS
    facts = provenance()
    parts = [f"Command: `{facts['command']}`. {facts['date']}, commit {facts['commit']}, {facts['machine']}.\n"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        painted = sources.load("painter", "", {"size": SIZE, "train": 100, "validation": 8, "test": 8, "seed": 0})
        faces = [painted.inputs["image"](i) for i in range(100)]
        make_model(folder / "model", tuple(painted.classes["expression"]))
        model = f"--model={folder / 'model'}"
        if settings.pictures:
            make_pictures(folder / "pictures", faces, settings.pictures)
            looks = watch([model, f"--output={folder / 'answers.jsonl'}", str(folder / "pictures")])
            count = len((folder / "answers.jsonl").read_text().splitlines())
            parts.append(page(f"{count} pictures", looks))
            print(parts[-1], flush=True)
        if settings.minutes:
            make_video(folder / "long.mp4", faces, settings.minutes)
            looks = watch([model, f"--video={folder / 'long.mp4'}", f"--output={folder / 'answers'}"])
            count = len((folder / "answers" / "long.emotions.csv").read_text().splitlines()) - 1
            parts.append(page(f"{settings.minutes} minutes of video, {count} frames", looks))
            print(parts[-1], flush=True)
    if settings.page:
        pathlib.Path(settings.page).write_text("\n".join(parts))


if __name__ == "__main__":
    flags.DEFINE_integer("pictures", 10_000, "How many pictures; 0: none.", 0)
    flags.DEFINE_integer("minutes", 60, "How long a video; 0: none.", 0)
    flags.DEFINE_string("page", None, "Markdown file to write; empty: the standard output alone.")
    app.run(main)
