"""What the networks make of a few fixed examples: who resembles whom, and the teachers' features in two dimensions."""

from emokd.reporting import observations
from emokd.reporting.drawing.heat import draw_matrix
from emokd.reporting.drawing.points import SHAPES, draw_points
from emokd.reporting.drawing.svg import colour, shortened
from emokd.reporting.page.blocks import Block, Heading, Panels, Text
from emokd.reporting.run_files import RunFiles


def blocks(run: RunFiles) -> list[Block]:
    """Similarity matrices and representations; nothing for runs that observe none.

    Raises:
      InputError: an observation cannot be read.
    """
    found = observations.read(run.workdir)
    if not found:
        return []
    result: list[Block] = []
    columns = observations.similarity_columns(found)
    classes = found[-1].classes
    if columns:
        low = min(float(matrix.min()) for column in columns for matrix in column.matrices)
        drawings = [
            draw_matrix(title, matrix, (low, 1.0), column.labels, classes)
            for which in (0, 1)
            for column in columns
            for title, matrix in [(_title(column.titles, which), column.matrices[which])]
        ]
        result += [Heading("Similarity of examples to each other: the best teacher, and the student"), Panels(drawings)]
        order = "by class" if classes else "by valence, ascending"
        scale = f"Cosines from {low:.2f} (dark blue) to 1 (yellow); examples {order}."
        result.append(Text(scale, "quiet"))
    panels = observations.representation_panels(found[-1])
    if panels:
        labels = found[-1].labels
        drawings = [draw_points(title, sets, labels, classes) for title, sets in panels]
        # A set's shape is its place in its own panel.
        keys = [(f"dot {colour(i)}", shortened(name)) for i, name in enumerate(classes) if (labels == i).any()]
        if not classes:
            keys = [("valued low", "valence -1"), ("valued high", "valence 1")]
        shapes = "; ".join(
            f"{title}: {', '.join(f'{name} {SHAPES[i % len(SHAPES)]}' for i, name in enumerate(sets))}"
            for title, sets in panels
        )
        result += [
            Heading("Teachers' features in two dimensions (principal components)"),
            Panels(drawings, keys),
            Text(f"Shapes: {shapes}.", "quiet"),
        ]
    return [*result, Text("A few fixed examples of the validation split, in the evaluation view.", "quiet")]


def _title(titles: tuple[str, str], which: int) -> str:
    """The student's matrix takes the step from the teacher's title."""
    step = titles[0].split(":")[0]
    return titles[0] if which == 0 else f"{step}: {titles[1]}"
