"""A network of the run over several modalities, and its predictions without some of them."""

import dataclasses
from collections.abc import Iterable, Mapping

import ml_collections
from jaxtyping import Array, Bool, Float

from emokd.data.augment import View
from emokd.models.multimodal import MultimodalSpec, is_present
from emokd.models.network import Functional, TrainedModel
from emokd.phase import Batch, Tree
from emokd.recipes.common import modalities
from emokd.recipes.common.networks import create_network
from emokd.recipes.common.views import see
from emokd.signals import Signals


@dataclasses.dataclass(frozen=True, eq=False)
class Multimodal:
    """A network over several modalities, applied to views of the examples.

    Attributes:
      name: its name in the run, with which the names of its variants begin.
      spec: architecture, modalities and heads.
      network: the functional form of `spec`.
      models: weights that encoders start from, by modality.
    """

    name: str
    spec: MultimodalSpec
    network: Functional
    models: Mapping[str, TrainedModel]

    @property
    def modalities(self) -> modalities.Specs:
        """The modalities that are its inputs, by name."""
        return self.spec.modalities

    @property
    def feature_size(self) -> int:
        """Width of its features."""
        return self.network.module.feature_size

    def has(self, name: str, batch: Batch) -> Bool[Array, " B"]:
        """The rows that have a modality; for the network's own name, which needs no particular one, all but padding."""
        if name == self.name:
            return batch["mask"]
        return batch["mask"] & is_present(batch[self.modalities[name].input])

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Fresh parameters and statistics, the encoders' from the models where there are some.

        Raises:
          InputError: a model is of another architecture.
        """
        params, stats = self.network.init(key)
        return modalities.adopt_encoders(params, stats, self.models, self.modalities)

    def take_encoders(self, tree: Tree, other: Tree) -> Tree:
        """Its parameters (or statistics) `tree` with the encoders of its modalities from another network's `other`."""
        return modalities.take_encoders(tree, other, tuple(self.modalities))

    def signals(
        self,
        params: Tree,
        stats: Tree,
        batch: Batch,
        view: View,
        *,
        keep: Bool[Array, "B M"] | None = None,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[Signals, Tree]:
        """Its signals for a view of the batch, and its statistics after it; `keep` masks each example's modalities."""
        return self.network(params, stats, see(self.spec, batch, view), keep, train=train, key=key)

    @property
    def variants(self) -> dict[str, tuple[str, ...]]:
        """The modalities that it sees in each variant, by the variant's name."""
        return {f"{self.name}({'+'.join(names)})": names for names in modalities.subsets(tuple(self.modalities))}

    def signals_of_variants(self, params: Tree, stats: Tree, batch: Batch, view: View) -> dict[str, Signals]:
        """Its signals in each variant, where it sees only some of its modalities."""
        everything, rows = tuple(self.modalities), batch["id"].shape[0]
        return {
            variant: self.signals(params, stats, batch, view, keep=modalities.keep_only(names, everything, rows))[0]
            for variant, names in self.variants.items()
        }


def tokens(signals: Signals, names: Iterable[str]) -> dict[str, Float[Array, "B D"]]:
    """The tokens of these modalities among a network's signals."""
    return {name: signals.intermediates[f"token/{name}"] for name in names}


def create_multimodal(
    config: ml_collections.ConfigDict, name: str, spec: MultimodalSpec, models: Mapping[str, TrainedModel]
) -> Multimodal:
    """The network of a specification, under its name in this run.

    Raises:
      InputError: the precision is unknown.
    """
    return Multimodal(name, spec, create_network(spec, config, name), models)
