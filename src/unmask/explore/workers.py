"""Who evaluates the points: this process, some processes of this machine, or a Dask cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

from unmask.errors import UnmaskError
from unmask.explore.optional import distributed

DASK = "dask"


class Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """A future that is done."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def _begin() -> None:
    """In a new process: an interrupt is the parent's to handle, and without the parent there is nothing left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def workers(jobs: int, cluster: str | None) -> Iterator[tuple[Executor, int]]:
    """An executor, and how many points it evaluates at a time.

    Args:
        jobs: processes on this machine, if there is no cluster to connect to.
        cluster: None; `dask`: the cluster of Dask's own configuration (`DASK_SCHEDULER_ADDRESS`) or, without one, a new one of `jobs`
            processes here; else the address of a scheduler, such as `tcp://host:8786`. Its workers need unmask.

    Raises:
        UnmaskError: no cluster answers at the address.
    """
    if cluster is not None:
        with _dask(jobs, cluster) as found:
            yield found
    elif jobs == 1:
        yield Here(), 1
    else:
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin)
        try:
            yield pool, jobs
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


@contextmanager
def _dask(jobs: int, cluster: str) -> Iterator[tuple[Executor, int]]:
    library = distributed()
    if cluster != DASK and "://" not in cluster:
        raise UnmaskError(f"--cluster {cluster!r}: expected {DASK!r}, or the address of a Dask scheduler such as tcp://host:8786")
    address = cluster if cluster != DASK else library.config.get("scheduler-address", None)
    try:
        if address is None:
            client = library.Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None, set_as_default=False)
        else:
            client = library.Client(address, timeout="10s", set_as_default=False)
            client.wait_for_workers(1, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise UnmaskError(f"--cluster {cluster}: no cluster answers: {' '.join(str(error).split())}") from None
    with client:
        # Points are alike to Dask only if they are one: what it keeps by arguments would tie a point to the worker that had it before.
        yield client.get_executor(pure=False), sum(client.ncores().values())
