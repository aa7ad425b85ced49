"""SMKD's distillation step in plain PyTorch, from the weights of ours and on its batch."""

from collections.abc import Callable, Mapping

import torch
import torch_networks
import torch_side
from torch import nn
from torch.nn.functional import cross_entropy
from training_step import TrainingStep, seen

from emokd.models.network import TrainedModel


class Distillation(nn.Module):
    """The loss: the student's adapted features against every teacher's, weighted by what each teacher knows.

    Without the teachers' networks where their features are cached.
    """

    def __init__(self, step: TrainingStep, models: Mapping[str, TrainedModel], cached: bool):
        super().__init__()
        params, stats = step.initial
        spec = step.recipe.student_spec
        self.student = create_network(spec)
        torch_networks.load(self.student, params["student"], stats["student"])
        networks = {} if cached else {name: create_network(model.spec) for name, model in models.items()}
        for name, network in networks.items():
            torch_networks.load(network, models[name].params, models[name].stats)
        self.teachers = nn.ModuleDict(networks)
        self.probes, self.adapters = nn.ModuleDict(), nn.ModuleDict()
        for name in models:
            for section, maps in (("probes", self.probes), ("adapters", self.adapters)):
                outputs, inputs = params[section][name]["kernel"].shape[::-1]
                maps[name] = torch_networks.load(nn.Linear(inputs, outputs), params[section][name])
        self.train()
        for frozen in (self.teachers, self.probes):
            frozen.eval().requires_grad_(False)

    def learns(self) -> list[nn.Parameter]:
        """The student's backbone and the adapters."""
        return [*self.student.backbone.parameters(), *self.adapters.parameters()]

    def forward(self, own: torch.Tensor, labels: torch.Tensor, theirs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The batch's loss. `theirs` are the teachers' pictures, or their features where these are cached."""
        with torch.no_grad():
            # Standardised by mean 0 and deviation 1, which are the statistics before a training set is seen.
            known = {
                name: self.teachers[name](theirs[name])[0] if name in self.teachers else theirs[name]
                for name in self.probes
            }
            errors = [cross_entropy(self.probes[name](z), labels, reduction="none") for name, z in known.items()]
            weights = torch.softmax(-torch.stack(errors, 1).float(), 1)
        features, _ = self.student(own)
        distances = [((self.adapters[name](features) - z) ** 2).mean(1) for name, z in known.items()]
        return (weights * torch.stack(distances, 1).float()).sum(1).mean()


def create_network(spec) -> torch_networks.Network:
    """The network of a specification."""
    options = {key: value for key, value in spec.options.items() if key != "size"}
    return torch_networks.Network(spec.backbone, spec.heads, **options)


def create_call(
    step: TrainingStep, models: Mapping[str, TrainedModel], cached: bool, learning_rate: float, variant: str
) -> Callable[[], float]:
    """A call that takes the distillation step; its pictures are rendered already, which ours are not."""
    loss = torch_side.place(Distillation(step, models, cached), variant)
    images = step.batch["image"]
    own = torch_side.tensor(seen(images, step.recipe.student_spec), variant)
    theirs = {
        name: torch_side.tensor(step.batch[f"features/{name}"] if cached else seen(images, model.spec), variant)
        for name, model in models.items()
    }
    labels = torch_side.tensor(step.batch["expression"])
    return torch_side.training_call(loss, [own, labels, theirs], loss.learns(), variant, learning_rate)
