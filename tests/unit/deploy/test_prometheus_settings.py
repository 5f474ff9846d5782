"""The shipped settings of Prometheus let workers say no more than is theirs; see `test_forged_series.py`."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.support.prometheus import RULES

JOBS: dict[str, dict[str, Any]] = {
    f"{path.name}, {job['job_name']}": job
    for path in sorted(RULES.glob("prometheus*.yml"))
    for job in yaml.safe_load(path.read_text())["scrape_configs"]
}


@pytest.mark.parametrize("name", JOBS)
def test_no_target_chooses_whose_its_series_are_and_workers_say_no_times(name):
    job = JOBS[name]
    assert job.get("honor_labels", False) is False
    if "http_sd_configs" in job:
        assert job["honor_labels"] is job["honor_timestamps"] is False
        kept, dropped = job["metric_relabel_configs"]
        assert kept == {"action": "keep", "source_labels": ["__name__"], "regex": "(svc_worker|process)_.+"}
        assert dropped == {"action": "labeldrop", "regex": "exported_.+"}


def test_both_settings_scrape_workers_from_the_managers_list():
    lists = [job["http_sd_configs"] for job in JOBS.values() if "http_sd_configs" in job]
    assert len(lists) == len(list(RULES.glob("prometheus*.yml"))) == 2
