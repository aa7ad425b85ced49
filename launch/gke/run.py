#!/usr/bin/env python3
"""One run on a TPU slice of GKE: fills in jobset.yaml and hands it to kubectl. Other options go to emokd.train.

launch/gke/run.py --name=fi --image=REGISTRY/emokd:1 --claim=emokd --accelerator=tpu-v5-lite-podslice --topology=4x4
  --hosts=4 --chips=4 [--restarts=20] [--dry_run] --config=configs/smkd/fi.py --workdir=/mnt/emokd/runs/fi

Needs Python alone, and kubectl unless --dry_run, which prints the manifest.
"""

import argparse
import json
import math
import pathlib
import re
import shutil
import string
import subprocess
import sys

TEMPLATE = pathlib.Path(__file__).with_name("jobset.yaml")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's options, and those of emokd.train; exits with code 2 where one is missing or wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what begins like one of ours is not ours
    )
    parser.add_argument("--name", required=True, help="of the JobSet; 40 small letters, digits and hyphens at most")
    parser.add_argument("--image", required=True, help="a container image with emokd installed, and its configurations")
    parser.add_argument(
        "--claim", required=True, help="the volume claim, ReadWriteMany, that is /mnt/emokd in each pod"
    )
    parser.add_argument("--accelerator", required=True, help="the node label gke-tpu-accelerator")
    parser.add_argument("--topology", required=True, help="the node label gke-tpu-topology, such as 4x4")
    parser.add_argument("--hosts", required=True, type=positive, help="machines of the slice")
    parser.add_argument("--chips", required=True, type=positive, help="TPU chips of each machine")
    parser.add_argument("--restarts", default=20, type=positive, help="after how many failures to give up")
    parser.add_argument("--dry_run", action="store_true", help="print the manifest, and do nothing")
    options, train = parser.parse_known_args(arguments)
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", options.name):
        parser.error(f"--name is {options.name!r}; give at most 40 small letters, digits and hyphens, a letter first")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", options.topology):
        parser.error(f"--topology is {options.topology!r}; give the slice's shape in chips, such as 4x4 or 2x2x4")
    chips = math.prod(map(int, options.topology.split("x")))
    if chips != options.hosts * options.chips:
        parser.error(
            f"a slice of {options.topology} has {chips} chips, but {options.hosts} hosts with {options.chips} chips "
            f"have {options.hosts * options.chips}; correct --topology, --hosts or --chips"
        )
    return options, train


def positive(text: str) -> int:
    """A whole number of 1 or more; argparse turns the ValueError into a message."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def render(options: argparse.Namespace, train: list[str]) -> str:
    """The manifest. Values are written as JSON, which is YAML whatever they hold."""
    values = {name: json.dumps(value) for name, value in vars(options).items()}
    values["command"] = json.dumps(["python", "-m", "emokd.train", *train])
    return string.Template(TEMPLATE.read_text()).substitute(values)


def main(arguments: list[str]) -> int:
    """Prints or applies the manifest; returns the exit code."""
    options, train = parse(arguments)
    manifest = render(options, train)
    if options.dry_run:
        print(manifest, end="")
        return 0
    if shutil.which("kubectl") is None:
        print("run.py: there is no kubectl on PATH; install it, and log in to the cluster.", file=sys.stderr)
        return 2
    return subprocess.run(["kubectl", "apply", "-f", "-"], input=manifest, text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
