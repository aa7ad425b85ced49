"""What the student's single answers say: calibration, the valence-arousal plane, the most confident mistakes."""

from collections.abc import Mapping, Sequence

import numpy as np

from emokd.errors import InputError
from emokd.reporting import predictions
from emokd.reporting.drawing.calibration import binned, draw_reliability
from emokd.reporting.drawing.points import MOST, draw_affect
from emokd.reporting.page.blocks import Block, Grid, Heading, Panels, Picture, Pictures, Text
from emokd.reporting.predictions import Predictions
from emokd.reporting.run_files import Missing, RunFiles
from emokd.reporting.table import Table

MISTAKES = 24
"""Most mistakes that are listed."""

Thumbnails = Mapping[tuple[int, int], tuple[str, str]]
"""By (id, check) of an example: (its key, its picture as a JPEG in base64)."""


def calibration(run: RunFiles) -> list[Block]:
    """A reliability diagram of each target, with the same network on labels alone beside it where its answers are kept.

    Raises:
      Missing: no answers are kept, or they have no classes.
    """
    found: list[Block] = []
    networks = {"the student": _kept(run), "labels alone": _readable(run.workdir / "baseline")}
    targets = dict.fromkeys(target for kept in networks.values() if kept for target in kept.classified)
    for target in targets:
        bins = {
            who: binned(kept.classified[target].confidence, kept.classified[target].right)
            for who, kept in networks.items()
            if kept and target in kept.classified
        }
        if len(targets) > 1:
            found.append(Heading(target))
        drawings = [draw_reliability(part, who) for who, part in bins.items()]
        rows = [[who, f"{part.error:.4f}", str(int(part.count.sum()))] for who, part in bins.items()]
        table = Table(["", "expected calibration error", "examples"], rows)
        found += [
            Grid(table, label=f"Calibration: {target}", folded=False),
            Panels(drawings, [("bar s0", "share that is right"), ("gap", "gap to the confidence")]),
        ]
    if not found:
        raise Missing("The student answers with no classes.")
    text = (
        "A bar on the diagonal: answers of that confidence are right as often as they claim. Below: how many there are."
    )
    return [*found, Text(text, "quiet")]


def affect(run: RunFiles) -> list[Block]:
    """The valence-arousal plane; nothing where no answers of valence and arousal are kept.

    Raises:
      Missing: the answers cannot be read.
    """
    kept = _readable(run.workdir)
    if kept is None or kept.affect is None:
        return []
    answers, labels = kept.affect
    distance = np.linalg.norm(answers - labels, axis=1)
    shown = f"{MOST} of {len(labels)} examples" if len(labels) > MOST else f"{len(labels)} examples"
    bias = (answers - labels).mean(0)
    said = (
        f"The valence-arousal plane, {shown} of the {kept.split} split: from the label to the answer it is "
        f"{np.median(distance):.3f} in the median; answers lie {bias[0]:+.3f} in valence and {bias[1]:+.3f} in arousal "
        f"beside the labels on average. Answers spread by {answers[:, 0].std():.3f} and {answers[:, 1].std():.3f} "
        f"(standard deviations), labels by {labels[:, 0].std():.3f} and {labels[:, 1].std():.3f}."
    )
    keys = [("ring s1", "label"), ("dot s0", "answer")]
    return [Panels([draw_affect(answers, labels, said)], keys), Text(said, "quiet")]


def mistakes(run: RunFiles, thumbnails: Thumbnails | None) -> list[Block]:
    """The wrong answers of highest probability, with their pictures where `thumbnails` are given.

    Raises:
      Missing: no answers are kept, or they have no classes.
    """
    kept = _kept(run)
    found: list[Block] = []
    for target, rows in most_confident(kept).items():
        part = kept.classified[target]
        if len(kept.classified) > 1:
            found.append(Heading(target))
        if not rows:
            found.append(Text(f"None: all {len(part.labels)} answers are right."))
            continue
        texts = [
            [part.classes[part.labels[row]], part.classes[part.probabilities[row].argmax()],
             f"{part.confidence[row]:.3f}", f"{part.probabilities[row, part.labels[row]]:.3f}"]
            for row in rows
        ]  # fmt: skip
        wrong = int((~part.right).sum())
        count = f"{len(rows)} of {wrong} wrong answers to {len(part.labels)} examples of the {kept.split} split"
        if thumbnails is None:
            table = Table(["true", "predicted", "probability", "of the true class"], texts, title=count)
            found.append(Grid(table))
        else:
            found.append(Text(f"{count}."))
            found.append(
                Pictures(
                    [_picture(kept, part.rows[row], text, thumbnails) for row, text in zip(rows, texts, strict=True)]
                )
            )
    if not found:
        raise Missing("The student answers with no classes.")
    if thumbnails is None:
        text = (
            "Pictures are not shown, since a page is passed on easily: `python -m emokd.report --thumbnails` adds them."
        )
    else:
        text = "This page holds pictures and names of the data set: whoever gets it sees them."
    return [*found, Text(text, "quiet")]


def most_confident(kept: Predictions, most: int = MISTAKES) -> dict[str, list[int]]:
    """By target, the places of the wrong answers of highest probability, descending; stable among equals."""
    found = {}
    for target, part in kept.classified.items():
        wrong = np.flatnonzero(~part.right)
        found[target] = wrong[np.argsort(-part.confidence[wrong], kind="stable")][:most].tolist()
    return found


def _picture(kept: Predictions, row: int, text: Sequence[str], thumbnails: Thumbnails) -> Picture:
    true, predicted, probability, _ = text
    key, jpeg = thumbnails.get((int(kept.ids[row]), int(kept.checks[row])), ("", ""))
    described = f"{true}, taken for {predicted}"
    return Picture(
        jpeg, described, [f"{true} taken for {predicted}", f"probability {probability}", key or "no picture"]
    )


def _kept(run: RunFiles) -> Predictions:
    kept = _readable(run.workdir)
    if kept is None:
        if run.scores:
            raise Missing(
                f"This run kept no answers of its student ({predictions.FILE}). Remove its scores.json and run its "
                "training command again: it scores the student anew, from the checkpoints, and keeps them."
            )
        raise Missing("The student's answers are kept when training ends.")
    return kept


def _readable(folder) -> Predictions | None:
    try:
        return predictions.read(folder)
    except InputError as error:
        raise Missing(str(error)) from error
