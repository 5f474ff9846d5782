#!/usr/bin/env python3
"""Writes the dashboard: deploy/grafana/build.py > deploy/grafana/dashboards/svc.json, as a test checks.

The first row answers "is it all right?"; each further one says why not. Quantiles come from the recording
rules beside it (`../prometheus/rules`), so that they survive a change to native histograms.
"""

from __future__ import annotations

import json
import sys

from job_rows import ERRORS, HEALTH, LATENCY, SATURATION, TASKS, TRAFFIC
from panels import dashboard
from process_rows import MANAGER, META, REPLICATION, WORKERS

ROWS = (HEALTH, LATENCY, TRAFFIC, SATURATION, ERRORS, TASKS, WORKERS, MANAGER, REPLICATION, META)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(ROWS), indent=2) + "\n")
