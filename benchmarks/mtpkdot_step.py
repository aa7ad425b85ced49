"""The student step of MT-PKDOT on feature tables: ours against the published algorithm in plain PyTorch.

    python benchmarks/mtpkdot_step.py [--steps=20] [--small] [--nocompiled] [--page=FILE]

Shapes, networks and batch are those of configs/mtpkdot/ravdess.py; weights and numbers are random, and the same on both
sides. The PyTorch side follows the published algorithm: the batch-mean cross-entropy of every teacher is read back and
the least one picked in Python; the anchors come from a partial sort by NumPy on the host; GeomLoss solves the transport
of that one teacher; losses are read back for the log. Ours picks the teacher in the step and solves its transport
there. "without imitation" is our step of a student that imitates nothing: the floor under all that could be gained in
transport and structure. Where the PyTorch side is compiled, its networks and GeomLoss are, each by itself: what lies
between them is on the host. Its anchors are in the order of the partial sort, which moves the loss a little;
`sort=True` of `create_torch_call` is for the test that compares the losses.
"""

import functools
import pathlib
from collections.abc import Callable

import numpy as np
from side_by_side import ARRAYS, Comparison, Page, Settings, launch, precision
from training_step import CLASSES, TrainingStep, as_compared, create_task, random_batch

from emokd.configuration import config as configuration
from emokd.recipes import mtpkdot

CONFIG = pathlib.Path(__file__).parents[1] / "configs/mtpkdot/ravdess.py"
COLUMNS = {"action_units": 35, "mfcc": 259, "wav2vec2_logits": 8}
LEARNING_RATE = 5e-4


def create_config(
    batch_size: int = 128, solver: str = "converged", dropout: float | None = None, imitation: bool = True
):
    """The configuration that both sides follow: RAVDESS's, with plain Adam at a constant rate."""
    config = configuration.load(str(CONFIG)).copy_and_resolve_references()
    config.unlock()
    config.batch_size, config.structure.solver = batch_size, solver
    config.structure.k = min(config.structure.k, batch_size // 4)
    if dropout is not None:
        config.dropout = dropout
    if not imitation:
        config.objective.update({"task": 1.0, "transport": 0.0, "centroid": 0.0, "features": 0.0})
    config.phases.student.learning_rate = LEARNING_RATE
    config.phases.student.schedule, config.phases.student.warmup_percent = "constant", 0.0
    as_compared(config)
    return config


def create_step(config) -> TrainingStep:
    """Our step."""
    inputs = {f"features/{name}": (size,) for name, size in COLUMNS.items()}
    recipe = mtpkdot.build(config, create_task(config.batch_size, inputs), {})
    arrays = {name: (shape, np.float32) for name, shape in inputs.items()}
    return TrainingStep(recipe, config, "student", random_batch(config.batch_size, **arrays))


def create_torch_call(step: TrainingStep, variant: str, sort: bool = False) -> Callable[[], float]:
    """The published algorithm from the weights that `step` had at first, on its batch; `sort` orders the anchors."""
    import torch
    import torch_networks
    import torch_side
    from geomloss import SamplesLoss
    from torch.nn.functional import cross_entropy, normalize
    from torch_multimodal import MultimodalNetwork, Teachers

    config, (params, stats) = step.config, step.initial
    widths, classes = config.modalities.mfcc.options.widths, len(CLASSES)
    names = sorted(COLUMNS)
    visible = [name for name in names if not config.modalities[name].privileged]
    teachers = Teachers(MultimodalNetwork(COLUMNS, widths, classes), config.width, config.adapter_width, classes)
    student = MultimodalNetwork(
        {name: COLUMNS[name] for name in visible},
        widths,
        classes,
        hallucinated=[name for name in names if name not in visible],
        hallucination=config.hallucination.options.to_dict(),
        dropout=config.dropout,
    )
    frozen = {part: params[part] for part in ("teacher", "adapters", "aligned_heads")}
    torch_networks.load(teachers, frozen, {"teacher": stats["teacher"]}).eval().to(torch_side.DEVICE)
    torch_networks.load(student, params["student"], stats["student"]).train().to(torch_side.DEVICE)
    inputs = {name: torch_side.tensor(step.batch[f"features/{name}"]) for name in names}
    labels = torch_side.tensor(step.batch["expression"])
    optimizer = torch_side.adam(student.parameters(), LEARNING_RATE)
    ask_teachers, ask_student = torch_side.prepare(teachers, variant), torch_side.prepare(student, variant)
    solve = torch_side.prepare(SamplesLoss("sinkhorn", p=2, blur=config.structure.blur), variant)
    weights, k = config.objective, config.structure.k

    def similarities(features):
        directions = normalize(features.float())
        return directions @ directions.T

    def anchors(theirs):
        # An example is never its own anchor; as the most similar one it is not among the least similar either.
        values = theirs.cpu().numpy()
        columns = np.argpartition(values, k, axis=1)[:, :k]
        if sort:
            columns = np.take_along_axis(columns, np.take_along_axis(values, columns, 1).argsort(1, kind="stable"), 1)
        return torch.from_numpy(columns).to(torch_side.DEVICE)

    def call() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch_side.half_precision():
            with torch.no_grad():
                answers = ask_teachers(inputs)
                errors = [cross_entropy(logits, labels).item() for _, logits in answers]
            features, logits, _ = ask_student({name: inputs[name] for name in visible})
            task = cross_entropy(logits, labels)
        theirs = similarities(answers[min(range(len(errors)), key=errors.__getitem__)][0])
        own = similarities(features)
        columns = anchors(theirs)
        structure = solve((theirs - theirs.min()).gather(1, columns), (own - own.min()).gather(1, columns))
        centroid = (theirs.mean(0) - own.mean(0)).norm()
        value = weights.task * task + weights.transport * structure + weights.centroid * centroid
        value.backward()
        optimizer.step()
        # For the log.
        task.item(), structure.item(), centroid.item()
        torch_side.finish()
        return value.item()

    return call


def measure(settings: Settings) -> Page:
    """Both solvers of ours, and PyTorch's variants."""
    batch_size = 16 if settings.small else 128
    sides = Comparison()
    ours = {
        name: sides.add(name, lambda solver=solver: create_step(create_config(batch_size, solver)))
        for name, solver in (("emokd", "converged"), ("emokd, geomloss solver", "geomloss"))
    }
    sides.add("emokd, without imitation", lambda: create_step(create_config(batch_size, imitation=False)))
    sides.attempt_variants("PyTorch", functools.partial(create_torch_call, ours["emokd"]), ARRAYS, settings.compiled)
    times = sides.measure(settings)
    notes = [f"{name}: {iterations(side)} Sinkhorn iterations in its last step." for name, side in ours.items()]
    one = ours["emokd"]
    title = f"Batch of {batch_size}, k = {one.config.structure.k}, {len(one.recipe.teachers)} teachers"
    return Page("MT-PKDOT student step", [sides.table(times, "emokd", title, notes=notes)], {"precision": precision()})


def iterations(step: TrainingStep) -> str:
    """How long the solver of the last step was for each teacher."""
    prefix = "transport/iterations/"
    found = {name.removeprefix(prefix): value for name, value in step.metrics.items() if name.startswith(prefix)}
    return ", ".join(f"{name} {float(value):.0f}" for name, value in found.items())


if __name__ == "__main__":
    launch(measure)
