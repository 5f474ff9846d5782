"""The settings and rules of Prometheus, by its own promtool."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.prometheus import RULES, program


def promtool(*arguments: object) -> None:
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("settings", ["prometheus.yml", "prometheus.ha.yml"])
def test_the_settings_are_valid(settings):
    promtool("check", "config", RULES / settings)


def test_the_rules_are_valid():
    promtool("check", "rules", "--lint-fatal", *sorted((RULES / "rules").glob("*.yml")))


def test_alerts_fire_when_they_should_and_only_then():
    promtool("test", "rules", RULES / "tests" / "alerts.yml")
