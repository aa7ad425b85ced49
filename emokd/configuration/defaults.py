"""Configuration sections with their defaults; recipes and configs start from these and change what they mean to.

The range of each number is in `emokd.configuration.ranges`.
"""

from ml_collections import ConfigDict


def run(recipe: str) -> ConfigDict:
    """What every training job has, whatever its recipe."""
    return ConfigDict(
        {
            "recipe": recipe,
            "seed": 0,
            "start_from": "",  # a finished run: begin with its parameters, and leave out the phases that it has done
            "batch_size": 64,
            "accumulate": 1,  # microbatches into which a batch is divided, to save memory
            "devices": 0,  # how many of the devices to use; 0 for all
            "mesh": {"data": 0, "fsdp": 1},  # their axes; 0: what the other one leaves
            # Rules (pattern, tactic) that split parameters over devices, the first match counts; see docs/scaling.md.
            "sharding": {"state": (), "teachers": (), "min_size": 2**14},
            "precision": "float32",  # of the networks' computation, or bfloat16; weights and losses stay float32
            "remat": False,  # compute activations again in the backward pass instead of keeping them
            "data": data(),
            "student": network(),
            "optimizer": {
                "name": "adam",
                "b1": 0.9,
                "b2": 0.999,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 1e-4,
                "clip_norm": 1.0,
                # Each phase begins with moments of zero; False: groups that learn again go on with theirs. [ours]
                "fresh_moments": False,
                # How many steps of the run may be left out because loss, gradients, parameters or statistics are not
                # finite; the next one stops it. See docs/reliability.md. [ours]
                "skip_diverged": 0,
            },
            # The student's moving average is what is scored and kept; 0: the student itself. See docs/architecture.md.
            "ema": {"decay": 0.0},
            "phases": {},
            # The same network on labels alone, for as many steps: what distillation is compared with. A learning rate
            # of 0 is that of the last phase. See docs/architecture.md.
            "baseline": {"enabled": False, "learning_rate": 0.0},
            "evaluation": every(epochs=1),
            "select": {"which": "best", "metric": "expression/accuracy"},
            # A phase in which the student is scored ends when so many evaluations in turn do not beat the phase's best
            # `select.metric` by more than `min_delta`; 0: never. Phases without scores run to their end.
            "early_stopping": {"patience": 0, "min_delta": 0.0},
            "cache": {"dir": "", "dtype": "float16"},  # cached teacher features, from cache_teachers; empty: live
            # The last few are kept, and the best. One sooner than `min_seconds` after the one before is left out,
            # unless it is the best so far or the run's last.
            "checkpoint": {"keep": 2, "min_seconds": 10.0},
            # Besides metrics.jsonl: "tensorboard", "wandb", "mlflow", see docs/report.md.
            "log": {"every_steps": 10, "sinks": ("tensorboard",)},
        }
    )


def data() -> ConfigDict:
    """Where examples come from, how they are split, decoded and augmented."""
    return ConfigDict(
        {
            "source": "",  # a module of emokd.data.sources
            "dir": "",  # its folder; empty: under $EMOKD_DATA
            "options": {},  # what the source takes
            "licence": "",  # of the data, in words, for the model card of an export
            "extra": {"source": "", "dir": "", "options": {}},  # unlabelled pictures for imitation
            "split": {
                "train": 0.7,
                "validation": 0.1,
                "test": 0.2,
                "seed": 0,
                "folds": 0,  # with folds, fold `fold` is the test split
                "fold": 0,
                "leave_one_group_out": False,  # each group (subject) is a fold; `folds` stays 0
                "by_group": True,  # groups (subjects, videos), where a set has them, are on one side
                "use_prescribed": True,
                "keep_leaks": False,  # keep what equals an example of a later prescribed split
                "compare_copies": True,  # decode every picture once, to find duplicates in other bytes
                "validation_is_test": False,  # the test split also picks the epoch: optimistic, see docs/data.md
            },
            # Training examples whose labels are used: 0 all, below 1 a share, else a number; see docs/data.md.
            "labels": {"limit": 0.0, "seed": 0},
            "canvas": 160,  # pictures are stored as uint8 squares of this side
            "fit": "crop",  # how a picture becomes a square: crop, squash or pad
            "views": 0,  # distinct augmentations per example; 0: a new one every epoch of the run
            "view_seed": 0,  # independent of `seed`, so that runs can share cached teachers
            "num_threads": 2,
            "in_memory": False,  # decode once and keep the canvases
            "max_bad_fraction": 0.001,  # more unreadable pictures than this share of a split stop the run
            "augment": {
                "crop_area": (0.35, 1.0),
                "aspect": (3 / 4, 4 / 3),
                "flip": 0.5,
                "brightness": 0.2,
                "contrast": 0.2,
                "saturation": 0.2,
                "hue": 0.0,
                "erase": 0.0,
            },
        }
    )


def network(backbone: str = "basic_cnn", size: int = 0, **options) -> ConfigDict:
    """A student: architecture, input side (0: its own default), dropout, initial weights, and its numbers."""
    return ConfigDict(
        {
            "backbone": backbone,
            "options": options,
            "size": size,
            "dropout": 0.0,
            "init": "",  # a model folder or a weights file; empty: from nothing
            "quantized": False,  # learns to compute in 8-bit integers in the last phase, see docs/export.md
        },
    )


def teacher(
    backbone: str = "",
    *,
    checkpoint: str = "",
    if_there: str = "",
    answers: str = "",
    train: str = "",
    task: str = "",
    size: int = 0,
    **options,
) -> ConfigDict:
    """A teacher: from `checkpoint`, a file of `answers`, the configuration `train`, or column `task` of this run.

    Or from the weights file `if_there`: a run leaves the teacher out where that is missing.
    """
    return ConfigDict(
        {
            "backbone": backbone,
            "options": options,
            "size": size,
            "checkpoint": checkpoint,
            "if_there": if_there,  # where there is no checkpoint: this file, or without it a run without this teacher
            "answers": answers,
            "train": train,
            "task": task,
            "tuning": "linear_probe",
            "licence": "",  # of its weights, in words, for the model card of an export
        }
    )


def modality(
    source: str, backbone: str, *, privileged: bool = False, size: int = 0, standardize: str = "columns", **options
) -> ConfigDict:
    """A modality: the batch's input that it reads, its encoder, and whether it is there in training only."""
    return ConfigDict(
        {
            "input": source,
            "backbone": backbone,
            "options": options,
            "size": size,
            "standardize": standardize,
            "privileged": privileged,
            "init": "",  # a weights file for the encoder
        }
    )


def phase(
    *,
    learning_rate: float,
    warmup_percent: float = 5.0,
    schedule: str = "cosine",
    enabled: bool = True,
    **length: float,
) -> ConfigDict:
    """A phase's length, as `epochs`, `steps` or `examples`, and its learning rate; of length 0 it is left out."""
    return ConfigDict(
        {
            "enabled": enabled,
            "learning_rate": learning_rate,
            "schedule": schedule,
            "warmup_percent": warmup_percent,
            **duration("duration", **length),
        }
    )


def every(**length: float) -> ConfigDict:
    """How often to evaluate and save: `epochs` of the phase's data, `steps`, `examples`, or `percent` of the phase."""
    return ConfigDict(duration("every", **length))


def duration(name: str, **length: float) -> dict[str, float]:
    """The key of a duration in the one unit given; the command line may use another."""
    ((unit, value),) = length.items()
    return {f"{name}_{unit}": float(value) if unit in ("epochs", "percent") else int(value)}
