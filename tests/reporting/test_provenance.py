"""Where numbers come from: against git, /proc and the packages themselves."""

import subprocess
import sys

import jax
import pytest

from emokd.reporting import provenance as module


@pytest.fixture(autouse=True)
def forget():
    module.commit.cache_clear()
    yield
    module.commit.cache_clear()


def make_checkout(folder, monkeypatch):
    """A checkout that holds this module, as the package's own would."""
    inside = folder / "emokd" / "provenance.py"
    inside.parent.mkdir()
    inside.write_text("")

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    monkeypatch.setattr(module, "__file__", str(inside))
    return git, inside


def test_commit_and_dirty_flag(tmp_path, monkeypatch):
    git, inside = make_checkout(tmp_path, monkeypatch)
    git("add", ".")
    git("commit", "-q", "-m", "x")
    head = git("rev-parse", "HEAD")
    assert module.commit() == head[:12]
    module.commit.cache_clear()
    inside.write_text("changed")
    assert module.commit() == f"{head[:12]} + uncommitted changes"


def test_the_commit_of_a_checkout_that_merely_surrounds_an_installed_copy_is_not_ours(tmp_path, monkeypatch):
    git, _ = make_checkout(tmp_path, monkeypatch)
    (tmp_path / "README").write_text("another project")
    git("add", "README")
    git("commit", "-q", "-m", "x")
    assert module.commit().startswith("unknown")


def test_cpu_model_is_read_from_cpuinfo(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3: GHz\n\nprocessor\t: 1\nmodel name\t: Other\n")
    assert module.cpu_model(file) == "Some CPU @ 3: GHz"


def test_every_fact_is_there(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/study.py", "--config=a b.py"])
    facts = module.provenance()
    assert list(facts) == ["command", "commit", "date", "machine", "versions"]
    assert facts["command"].endswith("'--config=a b.py'")
    assert f"jax {jax.__version__}" in facts["versions"] and f"Python {sys.version.split()[0]}" in facts["versions"]
    assert "cores" in facts["machine"] and facts["date"].endswith("UTC")
