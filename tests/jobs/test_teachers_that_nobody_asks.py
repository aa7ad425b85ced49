"""SMKD without the phases that ask teachers: a student on labels alone, whose teachers need not even be there."""

from absl import logging
from small_jobs import paint

from emokd.configuration import defaults
from emokd.jobs import job
from emokd.recipes import smkd


def test_teachers_that_no_phase_asks_are_not_read(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "info", lambda text, *args: said.append(text % args))
    config = paint(smkd.default_config(), steps=1)
    config.devices = 1
    config.teachers.gone = defaults.teacher(checkpoint="/no/such/place")
    config.teachers.untrained = defaults.teacher(train="no_such_configuration.py")
    for name in ("teach", "probe", "distill"):
        config.phases[name].enabled = False
    made = job.create_job(config.lock(), None)
    assert "No phase of this run asks a teacher: gone, untrained are not read." in said
    assert made.recipe.constants == {} and not made.recipe.teachers and made.recipe.weighting is None
    assert [phase.name for phase in made.recipe.phases] == ["classify", "finetune"]
    assert set(config.teachers) == {"gone", "untrained"}
