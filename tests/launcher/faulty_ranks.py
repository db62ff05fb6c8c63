"""Ranks that end in every way a rank can, and programs that start them.

Run as a program, in a process of its own that may be interrupted and killed:
``faulty_ranks.py local RUN_DIR FUNCTION`` starts three ranks, ``faulty_ranks.py launched RUN_DIR FUNCTION``
is one rank, placed by the environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.errors import report
from frontrunner.launcher.ranks.launched import train_as_rank
from frontrunner.launcher.ranks.local import launch
from frontrunner.launcher.ranks.request import Request
from frontrunner.parallelism.rendezvous import Rendezvous, from_environment
from frontrunner.run_folder import endings
from frontrunner.run_folder.record_writer import RecordWriter
from frontrunner.run_folder.records import OnRecord

RANKS = 3
PRELOAD = ("frontrunner.configs.load", "faulty_ranks")


def finish(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    print(f"noise of rank {place.rank} on stdout", flush=True)
    os.write(2, f"noise of rank {place.rank} below Python\n".encode())
    (run_dir / f"ready-{place.rank}").touch()
    if place.rank == 0:
        for other in range(place.world_size):  # as in training, where all ranks meet before the first record
            _wait_for(run_dir / f"ready-{other}")
        write_records(spec, run_dir, on_record)


def write_records(spec: RunSpec, run_dir: Path, on_record: OnRecord | None, steps: int = 10) -> None:
    """What a run that ends well leaves behind."""
    sent = {"package": 2048.0, "node": 1024.0, "network": 512.0}
    layout = {"nodes": 1, "devices_per_node": 3, "devices_per_package": 1, "tensor": 1, "pipeline": 1}
    degrees = {"data": 3, "weights": 1, "gradients": 1, "optimizer": 1}
    with RecordWriter(run_dir, on_record) as writer:
        writer.write("header", spec=spec.model_dump(mode="json"), layout=layout | degrees, device="cpu")
        writer.write("validation", step=0, loss=5.5, unigram_loss=4.25)
        for step in range(1, steps + 1):
            writer.write("step", **step_fields(step), bytes_sent=sent)
        writer.write("validation", step=steps, loss=3.5, unigram_loss=4.25)
        writer.write(
            "summary",
            steps=steps,
            first_validation_loss=5.5,
            last_validation_loss=3.5,
            tokens_per_s_per_device=1500.0,
            bytes_per_step=sent,
            elapsed_s=12.0,
        )


def step_fields(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "loss": 5.0 - 0.1 * step,
        "learning_rate": 1e-3,
        "gradient_norm": float("nan") if step == 2 else 1.25,
        "step_time_s": 0.5,
        "forward_backward_s": 0.25,
        "communication_exposed_s": 0.125,
        "optimizer_s": 0.0625,
        "tokens_per_s_per_device": 1500.0,
        "model_flops_per_s_per_device": 2e12,
        "hardware_flops_per_s_per_device": 3e12,
        "mfu": 0.25,
        "peak_memory_bytes": 3 * 2**30,
        "skipped": False,
    }


def raise_first(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Rank 1 is at fault; the others lose their connection to it."""
    if place.rank == 1:
        raise ValueError("the cause")
    _wait_for(run_dir / "errors" / "rank-1.txt")
    raise RuntimeError("[gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:33059")


def raise_last(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Rank 1 is at fault, and the last to say so."""
    if place.rank == 1:
        _wait_for(run_dir / "errors" / "rank-0.txt")
        raise ValueError("the cause")
    raise RuntimeError("[gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:33059")


def raise_alone(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Rank 1 fails, the others do not notice."""
    if place.rank == 1:
        raise ValueError("the cause")
    time.sleep(1000)


def time_out(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Rank 1 gives up waiting for the others, which hang: nobody is at fault, and it alone can say so."""
    if place.rank == 1:
        raise RuntimeError("Timed out waiting 1800000ms for recv operation to complete")
    time.sleep(1000)


def exit_seven(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    if place.rank == 1:
        print("the last words", flush=True)
        os._exit(7)
    time.sleep(1000)


def kill_itself(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    if place.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1000)


def crash(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    if place.rank == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(1000)


def refuse(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    raise SpecError([Violation("layout.tensor", 3, "3 must divide 4", "use 1, 2 or 4", "run.yaml", 7)])


def tell_interfaces(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Write down on which interfaces this rank's libraries would listen."""
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    (run_dir / f"interfaces-{place.rank}").write_text(" ".join(os.environ[name] for name in names))
    finish(spec, run_dir, place, on_record)


def hang(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Sleep, with a child that sleeps too."""
    with subprocess.Popen(["sleep", "1000"]):
        (run_dir / f"ready-{place.rank}").touch()
        time.sleep(1000)


def hang_stubbornly(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang(spec, run_dir, place, on_record)


def stop_on_request(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Take steps until any rank is asked to stop, as training does."""
    (run_dir / f"ready-{place.rank}").touch()
    while not endings.asked():
        time.sleep(0.01)
    raise endings.Stopped(4)


def stop_at_once(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    raise endings.Stopped(4)


def ignore_requests(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Be asked to stop and go on, as in a very long step."""
    (run_dir / f"ready-{place.rank}").touch()
    while True:
        time.sleep(0.01)


def sleep_in_training(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Train; in its third step rank 1 falls asleep."""
    _train(spec, run_dir, place, lambda: time.sleep(1000))


def freeze_in_training(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Train; in its third step rank 1 is stopped, and can do nothing at all."""
    _train(spec, run_dir, place, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def corrupt_once(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Train; in the first start, a bit of rank 1's state flips after the third step."""
    if (run_dir / "flipped").exists():
        from frontrunner.parallelism.runtime.train import train

        train(spec, run_dir, place)
        return
    corrupt_always(spec, run_dir, place, on_record)


def corrupt_always(spec: RunSpec, run_dir: Path, place: Rendezvous, on_record: OnRecord | None) -> None:
    """Train; after the third step of each start, a bit of rank 1's state flips."""
    import torch

    from frontrunner.parallelism.runtime.train import train
    from frontrunner.parallelism.runtime.trainer import Trainer

    update, taken = Trainer.update, 0

    def faulty(self: Trainer, *args: Any) -> Any:
        nonlocal taken
        result = update(self, *args)
        taken += 1
        if taken == 3 and place.rank == 1:
            (run_dir / "flipped").touch()
            self.optimizer.moments[0][0].view(torch.int32)[0] ^= 1 << 20
        return result

    Trainer.update = faulty  # type: ignore[method-assign,assignment]
    train(spec, run_dir, place)


def _train(spec: RunSpec, run_dir: Path, place: Rendezvous, fault: Callable[[], object]) -> None:
    from frontrunner.parallelism.runtime.train import train
    from frontrunner.parallelism.runtime.trainer import Trainer

    run, taken = Trainer.run, 0

    def faulty(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 3 and place.rank == 1:
            fault()
        return run(self, *args, **kwargs)

    Trainer.run = faulty  # type: ignore[method-assign]
    train(spec, run_dir, place)


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def main() -> None:
    mode, run_dir, target = sys.argv[1], Path(sys.argv[2]), f"faulty_ranks:{sys.argv[3]}"
    if mode == "launched":
        place = from_environment(os.environ)
        assert place is not None
        train_as_rank(place, Request(os.environ["RUN_FILE"], run_dir=run_dir), target)
        return
    try:
        launch(run_dir, RANKS, target=target, preload=sys.argv[4:] or PRELOAD)
    except BaseException as error:
        code = report(error, as_json=False)
        if "LINGERS_S" in os.environ:  # as an interpreter does that has much to take down
            (run_dir / "lingers").touch()
            time.sleep(float(os.environ["LINGERS_S"]))
        sys.exit(code)


if __name__ == "__main__":
    main()
