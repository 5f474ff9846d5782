"""Checks of svc's packages and prose: `make audit`, `make sbom` and `python -m tools.words`."""
