"""The manifests of `deploy/k8s` as kustomize renders them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kubernetes import Bundle, Pod, copy_with_keys

OVERLAYS = ("example", "autoscaled")


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    return copy_with_keys(tmp_path_factory.mktemp("deploy"))


@pytest.fixture(scope="module")
def bundles(copied: Path) -> dict[str, Bundle]:
    return {name: Bundle.of(copied / "overlays" / name) for name in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def bundle(bundles: dict[str, Bundle], request) -> Bundle:
    return bundles[request.param]


@pytest.fixture(params=["manager", "worker"])
def pod(bundle: Bundle, request) -> Pod:
    return bundle.manager if request.param == "manager" else bundle.worker
