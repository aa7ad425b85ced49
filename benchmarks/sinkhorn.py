"""The Sinkhorn divergence, forward and backward: ours, ott-jax and GeomLoss, eager and compiled.

    python benchmarks/sinkhorn.py [--steps=50] [--small] [--nocompiled] [--page=FILE]

128, 512 and 1024 points in 30 dimensions, made as the recipe makes them: the structure of a batch in the eyes of a
teacher and of a student. All compute in float32. GeomLoss reads the clouds' diameter back to the host to plan its
steps; "diameter given" spares it that, and is the most that torch.compile can be given.

"four softmins" is what any solver repeats: a log-sum-exp over the rows of the costs of each of the four problems. Times
the number of iterations it is the floor under a solver in that framework.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from side_by_side import Comparison, Page, Settings, launch

from emokd.losses import structure, transport

POINTS, DIMENSIONS, BLUR = (128, 512, 1024), 30, 0.1
VARIANTS = ("eager", "compiled", "compiled, diameter given")


def create_clouds(points: int, dimensions: int) -> structure.Clouds:
    """Clouds of a batch of eight classes, whose student knows them less well than its teacher."""
    centre_key, teacher_key, student_key = jax.random.split(jax.random.key(0), 3)
    centres = jnp.tile(jax.random.normal(centre_key, (8, 128)), (points // 8, 1))
    teacher = centres + jax.random.normal(teacher_key, centres.shape)
    student = 0.5 * centres + jax.random.normal(student_key, centres.shape)
    return jax.jit(functools.partial(structure.clouds, k=dimensions))(student, teacher)


def create_call(clouds: structure.Clouds, solver: str) -> Callable[[], tuple[Array, Array]]:
    """Our value and the student's gradient."""

    def value(student, teacher):
        return transport.sinkhorn_divergence(student, teacher, blur=BLUR, solver=solver).values.mean()

    compiled = jax.jit(jax.value_and_grad(value)).lower(*clouds).compile()
    return lambda: compiled(*clouds)


def create_torch_call(clouds: structure.Clouds, variant: str) -> Callable[[], tuple[float, np.ndarray]]:
    """GeomLoss's; the clouds are on its device before."""
    import torch_side
    from geomloss import SamplesLoss

    student, teacher = (torch_side.tensor(cloud) for cloud in clouds)
    student.requires_grad_()
    both = np.concatenate([np.asarray(cloud) for cloud in clouds])
    diameter = float(np.linalg.norm(both.max(0) - both.min(0))) if "diameter" in variant else None
    loss = SamplesLoss("sinkhorn", p=2, blur=BLUR, diameter=diameter, backend="tensorized")
    solve = torch_side.prepare(loss, variant)

    def call():
        student.grad = None
        value = solve(teacher, student)
        value.backward()
        torch_side.finish()
        return value.item(), student.grad.cpu().numpy()

    return call


def create_softmins(points: int) -> Callable[[], Array]:
    """Ours of the four problems, on random costs."""
    costs, potentials = (jax.random.uniform(jax.random.key(i), (4, points, points)[: 3 - i]) for i in range(2))

    def softmins(costs, potentials):
        return -(BLUR**2) * jax.nn.logsumexp((potentials[:, None, :] - costs) / BLUR**2, axis=-1)

    return functools.partial(jax.jit(softmins).lower(costs, potentials).compile(), costs, potentials)


def create_torch_softmins(points: int, variant: str) -> Callable[[], None]:
    """GeomLoss's, which are four calls."""
    import torch
    import torch_side

    costs, potentials = (torch.rand((4, points, points)[: 3 - i], device=torch_side.DEVICE) for i in range(2))

    def softmin(costs, potentials):
        return -(BLUR**2) * torch.logsumexp((potentials[None, :] - costs) / BLUR**2, -1)

    prepared = torch_side.prepare(softmin, variant)

    def call():
        for problem in range(4):
            prepared(costs[problem], potentials[problem])
        torch_side.finish()

    return call


def iterations(clouds: structure.Clouds, solver: str) -> int:
    """How many our solver takes for the slowest of its problems."""
    return int(transport.sinkhorn_divergence(*clouds, blur=BLUR, solver=solver).iterations)


def measure(settings: Settings) -> Page:
    """Each size in an interleaved run of its own."""
    sizes, dimensions = ((16, 24), 4) if settings.small else (POINTS, DIMENSIONS)
    tables = []
    for points in sizes:
        clouds = create_clouds(points, dimensions)
        sides = Comparison()
        sides.add("emokd, converged", functools.partial(create_call, clouds, "converged"))
        sides.add("ott-jax, through emokd", functools.partial(create_call, clouds, "ott"))
        sides.add("emokd, geomloss", functools.partial(create_call, clouds, "geomloss"))
        sides.attempt_variants("GeomLoss", functools.partial(create_torch_call, clouds), VARIANTS, settings.compiled)
        times = sides.measure(settings)
        exact = float(sides.calls["emokd, converged"]()[0])
        values = [f"{name} {float(call()[0]) / exact - 1:+.2%}" for name, call in sides.calls.items()]
        note = f"Values, from that of the converged solver: {', '.join(values[1:])}."
        title = f"{points} points in {dimensions} dimensions"
        tables.append(sides.table(times, "emokd, converged", title, notes=[note]))
        tables.append(sides.table(times, "emokd, geomloss", f"{title}, over the other solver"))
        softmins = Comparison()
        softmins.add("four softmins, emokd", functools.partial(create_softmins, points))
        make = functools.partial(create_torch_softmins, points)
        softmins.attempt_variants("four softmins, PyTorch", make, ("eager", "compiled"), settings.compiled)
        found = ", ".join(f"{iterations(clouds, solver)} of the solver {solver}" for solver in transport.SOLVERS)
        note = (
            f"Iterations: {found}; GeomLoss's are those of geomloss. One of converged is four sums of exponentials "
            "over a matrix, one of ott two of each of its three problems, each of which stops by itself."
        )
        tables.append(
            softmins.table(softmins.measure(settings), "four softmins, emokd", f"{title}, floor", notes=[note])
        )
    return Page("Sinkhorn divergence, forward and backward", tables, {"precision": "float32"})


if __name__ == "__main__":
    launch(measure, steps=50)
