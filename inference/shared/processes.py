"""One run in several processes, each with its own devices, on JAX's distributed runtime."""

import jax
import numpy as np
from jax.experimental import multihost_utils

AUTO = "auto"


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Become one of several processes, before anything else asks JAX for devices; nothing without a coordinator.

    `coordinator` is the `HOST:PORT` at which process 0 can be reached, or `auto`: then all is taken from the variables
    of Slurm, Open MPI, Kubernetes or a TPU pod.

    **Raises:** `ValueError` where what is given is not enough.
    """
    if coordinator is None:
        if processes is not None or process is not None:
            raise ValueError("--num-processes and --process-id need --coordinator")
        return
    if coordinator == AUTO:
        jax.distributed.initialize(num_processes=processes, process_id=process)
        return
    if processes is None or process is None:
        raise ValueError(f"--coordinator {coordinator} needs --num-processes and --process-id")
    if not 0 <= process < processes:
        raise ValueError(f"--process-id must be from 0 to {processes - 1}, got {process}")
    # Not from the environment: a process has all devices that it sees.
    jax.distributed.initialize(coordinator, processes, process, cluster_detection_method="deactivate")


def is_first() -> bool:
    """Whether this process writes what all of them found."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Until every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def agreed(signal: int | None) -> int | None:
    """The signal that any process was sent, the same in all: they leave the loop after the same step."""
    if jax.process_count() == 1:
        return signal
    sent = int(np.max(multihost_utils.process_allgather(np.int32(signal or 0))))
    return sent or None
