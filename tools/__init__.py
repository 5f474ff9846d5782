"""Checks of what svc is made of: `make audit` and `make sbom`."""
