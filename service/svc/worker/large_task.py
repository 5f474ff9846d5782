"""Tasks whose arguments are fetched in pieces before the call, and removed after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from svc.errors import CodecError
from svc.worker.arguments import Arguments
from svc.worker.context import running_job
from svc.worker.failure import Failure, refused
from svc.worker.runner import ResolvedTask
from svc.worker.values import LargeValuesWorker


class LargeTask(ResolvedTask):
    """A task with jobs that have large arguments. A transfer counts as time of the attempt."""

    def run(self, body: bytes, origin: str = "", number: int = 0) -> bytes | Failure:
        """See `ResolvedTask.run`."""
        with self._transfers.attempt():
            return super().run(body, origin, number)

    async def run_beside(
        self,
        body: bytes,
        origin: str,  # noqa: ARG002 - as there
        number: int,  # noqa: ARG002 - as there
    ) -> bytes | Failure:
        """See `ResolvedTask.run_beside`; other jobs run during the transfer."""
        if self.refusal is not None:
            return refused(self.refusal)
        with self._transfers.attempt():
            try:
                args, kwargs = await asyncio.to_thread(self._arguments, body, None)
            except BaseException as error:  # noqa: BLE001 - as in `run`
                return refused(error)
            return await self._call_beside(args, kwargs, None)

    def attempt(self) -> AbstractContextManager[None]:
        """See `ResolvedTask.attempt`."""
        return self._transfers.attempt()

    @property
    def _transfers(self) -> LargeValuesWorker:
        if self.values is None:
            raise CodecError("large arguments cannot be fetched here")
        return self.values

    def _decoded(self, body: bytes, opened: Callable[[bytes], memoryview] | None) -> Arguments:
        running, number = running_job()
        return self._transfers.fetched(super()._decoded(body, opened), running.delivery.token, number)
