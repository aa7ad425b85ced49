"""How the student is used: lines to copy."""

import shlex

from emokd.reporting.page.blocks import Block, Code, Text
from emokd.reporting.run_files import Missing, RunFiles


def blocks(run: RunFiles) -> list[Block]:
    """Commands and Python for the student in the run's folder.

    Raises:
      Missing: there is no student yet.
    """
    folder = run.workdir.absolute()
    if not (folder / "student").is_dir():
        raise Missing("There is no student yet; it is stored when training ends.")
    path = shlex.quote(str(folder))
    of_modalities = bool(run.config.get("modalities"))
    given = "--table=ROWS.npz" if of_modalities else "PICTURES"
    python = f"import emokd\n\nstudent = emokd.load({str(folder)!r})\n"
    if of_modalities:
        python += 'answer = student({"MODALITY": array, "ANOTHER": array})'
    else:
        python += 'answer = student("face.jpg")'
    python += "\nprint(answer.expression, answer.probabilities, answer.valence, answer.arousal)"
    found: list[Block] = [
        Code(f"python -m emokd.predict --model={path} {given}", "Answers on the command line"),
        Code(python, "Answers in Python"),
        Code(f"python -m emokd.evaluate --workdir={path} --split=test", "Its scores again"),
    ]
    if not of_modalities:
        line = f"python -m emokd.export --model={shlex.quote(str(folder / 'student'))} --preprocess"
        found.append(Code(line, "An ONNX file for other runtimes"))
    text = "A click marks the whole block."
    return [*found, Text(text, "quiet")]
