"""What the scripts under launch would do, as their dry runs print it, and the manifest against the JobSet's schema."""

import copy
import json
import pathlib
import re
import shlex
import subprocess
import sys

import jsonschema
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
SCHEMA = json.loads(pathlib.Path(__file__).with_name("jobset.schema.json").read_text())
# One with a space and one with what a shell would replace.
TRAIN = ["--config=configs/smkd/quickstart.py", "--workdir=some where", "--config.seed=$HOME"]
GKE = (
    *("--name=fi", "--image=registry/emokd:1", "--claim=disk", "--accelerator=tpu-v5-lite-podslice"),
    *("--topology=4x4", "--hosts=4", "--chips=4", "--dry_run"),
)


@pytest.fixture
def launch(tmp_path):
    """Runs a script in another folder, without programs of a cluster on its PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "date", "dirname", "grep", "mkdir", "seq"):
        (tools / name).symlink_to(subprocess.check_output(["bash", "-c", f"type -P {name}"], text=True).strip())

    def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        program = [sys.executable] if script.endswith(".py") else ["bash"]
        return subprocess.run(
            [*program, str(ROOT / "launch" / script), *arguments],
            cwd=tmp_path,
            env={"PATH": str(tools), "EMOKD_PYTHON": sys.executable, **environment},
            capture_output=True,
            text=True,
        )

    return run


def test_local_starts_a_process_for_each_share_of_the_devices(launch):
    done = launch("local.sh", "--processes=3", "--devices=2", "--port=5000", "--dry_run", *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [command[1:6] for command in commands] == [
        [
            "EMOKD_COORDINATOR=127.0.0.1:5000",
            "EMOKD_PROCESSES=3",
            f"EMOKD_PROCESS={process}",
            "JAX_NUM_CPU_DEVICES=2",
            f"JAX_LOCAL_DEVICE_IDS={2 * process},{2 * process + 1}",
        ]
        for process in range(3)
    ]
    for command in commands:
        assert command[0] == "env"
        assert command[6:] == [sys.executable, "-m", "emokd.train", *TRAIN]


def test_local_starts_the_other_commands_that_several_processes_share(launch):
    for name in ("train", "evaluate", "cache_teachers"):
        done = launch("local.sh", "--processes=2", f"--command={name}", "--port=5000", "--dry_run", "--config=a.py")
        assert (done.returncode, done.stderr) == (0, "")
        for line in done.stdout.splitlines():
            assert shlex.split(line)[6:] == [sys.executable, "-m", f"emokd.{name}", "--config=a.py"]
        assert "several_processes=True" in (ROOT / f"emokd/{name}.py").read_text()


def test_local_finds_a_free_port_for_all(launch):
    lines = launch("local.sh", "--processes=2", "--dry_run").stdout.splitlines()
    ports = {re.search(r"127\.0\.0\.1:(\d+)", line)[1] for line in lines}
    assert len(lines) == 2 and len(ports) == 1


def test_local_ends_with_the_first_process_that_fails(launch, tmp_path):
    """The second process stands for one that waits for the first for ever."""
    program = tmp_path / "python"
    program.write_text("#!/usr/bin/env bash\n[[ $EMOKD_PROCESS == 0 ]] && exit 7\nwhile :; do :; done\n")
    program.chmod(0o755)
    assert launch("local.sh", "--processes=2", "--port=5000", EMOKD_PYTHON=str(program)).returncode == 7


def test_slurm_runs_one_task_for_each_gpu(launch):
    done = launch("slurm.sbatch", "--dry_run", *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    *directives, command = done.stdout.splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in directives)
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert "requeue" in options
    start = ["srun", "--kill-on-bad-exit=1", "env", "EMOKD_DISTRIBUTED=auto"]
    assert shlex.split(command) == [*start, sys.executable, "-m", "emokd.train", *TRAIN]


def test_slurm_finds_the_checkout_where_the_job_was_submitted(launch, tmp_path):
    assert launch("slurm.sbatch", "--dry_run", SLURM_SUBMIT_DIR=str(ROOT)).returncode == 0
    lost = launch("slurm.sbatch", "--dry_run", SLURM_SUBMIT_DIR=str(tmp_path))
    assert (lost.returncode, "submit the job from there" in lost.stderr) == (2, True)


def test_tpu_pod_sends_the_command_to_every_host(launch):
    done = launch("tpu_pod.sh", "--name=pod", "--zone=here-b", "--directory=a folder", "--dry_run", *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    *gcloud, remote = shlex.split(done.stdout)
    assert gcloud == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=here-b", "--worker=all"]
    # What the host's shell makes of it.
    python = ["env", "EMOKD_DISTRIBUTED=auto", ".venv/bin/python"]
    expected = ["cd", "a folder", "&&", *python, "-m", "emokd.train", *TRAIN]
    assert shlex.split(remote.removeprefix("--command=")) == expected
    assert (
        "--project=mine"
        in launch("tpu_pod.sh", "--name=pod", "--zone=here-b", "--project=mine", "--dry_run").stdout.split()
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("local.sh", "--config=a.py"), "local.sh: --processes is missing: give --processes=N."),
        (("local.sh", "--processes=none"), "local.sh: --processes is 'none'; give a whole number of 1 or more."),
        (("local.sh", "--processes=2", "--command=study"), "local.sh: --command is 'study'; give train, evaluate or"),
        (("local.sh", "--processes=2", "--devices=0"), "local.sh: --devices is '0'; give a whole number"),
        (
            ("slurm.sbatch", "--config=a.py"),
            "this is no Slurm job; submit it: sbatch launch/slurm.sbatch --config=a.py",
        ),
        (("tpu_pod.sh", "--zone=here-b"), "tpu_pod.sh: --name is missing: give --name=TPU."),
        (("tpu_pod.sh", "--name=pod"), "tpu_pod.sh: --zone is missing: give --zone=ZONE."),
        (("tpu_pod.sh", "--name=pod", "--zone=here-b"), "tpu_pod.sh: there is no gcloud on PATH"),
        (("gke/run.py", *GKE[1:]), "the following arguments are required: --name"),
        (("gke/run.py", *GKE, "--name=Big_Name"), "--name is 'Big_Name'; give at most 40 small letters"),
        (("gke/run.py", *GKE, "--hosts=0"), "argument --hosts: invalid positive value: '0'"),
        (("gke/run.py", *GKE, "--topology=4"), "--topology is '4'; give the slice's shape in chips"),
        (("gke/run.py", *GKE, "--hosts=3"), "a slice of 4x4 has 16 chips, but 3 hosts with 4 chips have 12"),
        (("gke/run.py", *GKE[:-1]), "run.py: there is no kubectl on PATH"),
    ],
)
def test_what_is_missing_or_wrong_is_said(launch, command, message):
    done = launch(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_missing_interpreter_is_said(launch):
    done = launch("local.sh", "--processes=2", "--dry_run", EMOKD_PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert "there is no /nowhere/python. Make .venv as docs/scaling.md says, or set EMOKD_PYTHON." in done.stderr


def test_the_matrix_leaves_out_rows_without_an_interpreter_and_goes_on(launch, tmp_path):
    done = launch("matrix.sh", "--rows=locked-3.12,oldest-3.11", PYENV_ROOT=str(tmp_path))
    said = [line for line in done.stdout.splitlines() if "no interpreter of Python" in line]
    assert [line.split(":")[0] for line in said] == ["locked-3.12", "oldest-3.11"]
    assert done.stdout.count("left out: no interpreter") == 2
    assert done.returncode == 2  # nothing has run


def test_the_matrix_names_its_rows(launch):
    done = launch("matrix.sh", "--rows=newest-3.13,3.10")
    assert done.returncode == 2
    assert "--rows names '3.10'; give some of locked-3.11 locked-3.12" in done.stderr


def problems(manifest) -> list[str]:
    """Where a manifest breaks the schema, and how."""
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(manifest)
    return [f"{error.json_path}: {error.message}" for error in found]


@pytest.fixture
def manifest(launch):
    done = launch("gke/run.py", *GKE, "--restarts=3", *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)


def test_the_manifest_fits_the_schema(manifest):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert problems(manifest) == []


def test_the_manifest_says_what_was_asked_for(manifest):
    assert manifest["metadata"]["name"] == "fi"
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 3
    [replicated] = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert replicated["replicas"] == 1 and job["completions"] == job["parallelism"] == 4
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    [container] = pod["containers"]
    assert container["image"] == "registry/emokd:1"
    assert container["command"] == ["python", "-m", "emokd.train", *TRAIN]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert {"name": "EMOKD_DISTRIBUTED", "value": "auto"} in container["env"]
    [volume], [mount] = pod["volumes"], container["volumeMounts"]
    assert volume["persistentVolumeClaim"]["claimName"] == "disk" and volume["name"] == mount["name"]


def test_a_failed_pod_restarts_all_but_a_wrong_configuration_ends_them(manifest):
    """backoffLimit 0 makes a Job of the first failed pod; a restart policy other than Never would hide it."""
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    [rule] = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": pod["containers"][0]["name"], "operator": "In", "values": [2]}
    [rule] = manifest["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("kind",), "Job", "$.kind: 'JobSet' was expected"),
        (("spec", "failurePolicy", "maxRestart"), 3, "$.spec.failurePolicy: Additional properties are not allowed"),
        (("spec", "failurePolicy", "maxRestarts"), "3", "$.spec.failurePolicy.maxRestarts: '3' is not of type"),
        (
            ("spec", "failurePolicy", "rules", 0, "action"),
            "Fail",
            "$.spec.failurePolicy.rules[0].action: 'Fail' is not",
        ),
        (("spec", "replicatedJobs"), [], "$.spec.replicatedJobs: [] should be non-empty"),
        (("spec", "replicatedJobs", 0, "replicas"), -1, "$.spec.replicatedJobs[0].replicas: -1 is less than"),
        (("metadata", "name"), "Fi", "$.metadata.name: 'Fi' does not match"),
        (("spec", "replicatedJobs", 0, "template"), {}, "$.spec.replicatedJobs[0].template: 'spec' is a required"),
    ],
)
def test_the_schema_finds_what_is_wrong(manifest, path, value, problem):
    wrong = copy.deepcopy(manifest)
    inner = wrong
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    [found] = problems(wrong)
    assert found.startswith(problem)
