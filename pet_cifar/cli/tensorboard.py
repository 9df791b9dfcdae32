"""``pet-cifar board``: opens TensorBoard on runs."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.errors import InputError

LOGS = Path("lightning_logs")


def run_board(args: Sequence[str]) -> None:
    """Starts TensorBoard and waits until it is stopped."""
    parser = PlainParser(prog="pet-cifar board", description="Open TensorBoard, for this machine only.")
    parser.add_argument("runs", nargs="*", type=Path, help=f"Directories of runs; {LOGS} if none is given.")
    parser.add_argument("--port", type=int, default=6006, help="Where to listen; 0 for any that is free.")
    options = parser.parse_args(args)
    if not 0 <= options.port <= 65535:
        raise InputError(f"--port {options.port}: a port is from 0 to 65535")
    runs = options.runs or [LOGS]
    for run in runs:
        if not run.is_dir():
            raise InputError(f"there is no directory {run}; give one of a run, such as lightning_logs/digits_residual")
        if next(run.rglob("events.out.tfevents.*"), None) is None:
            raise InputError(f"{run} holds no TensorBoard files; train something first, or give another directory")
    with ExitStack() as stack:
        directory = runs[0]
        if len(runs) > 1:  # TensorBoard takes one directory.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pet_cifar_board_")))
            for run in dict.fromkeys(run.resolve() for run in runs):
                names = ("_".join(run.parts[-parts:]) for parts in range(2, len(run.parts) + 1))
                free = next(name for name in names if not (directory / name).is_symlink())
                (directory / free).symlink_to(run, target_is_directory=True)
        _serve(directory, options.port)


def _serve(directory: Path, port: int) -> None:
    # TensorBoard and what names need are heavy, and --help answers without them.
    from tensorboard import program
    from tensorboard.util import tb_logging

    from pet_cifar.names import printable

    board = program.TensorBoard()
    board.configure(argv=["pet-cifar", *flags(directory, port)])
    tb_logging.get_logger().setLevel("ERROR")
    try:
        url = board.launch()
    except program.TensorBoardServerException as error:
        raise InputError(f"{error}; give another --port, such as --port 0 for any that is free") from error
    try:
        print(f"TensorBoard shows {printable(str(directory))} at {url} (Ctrl-C stops it)", flush=True)
        wait()
    except KeyboardInterrupt:
        print()


def flags(directory: Path, port: int) -> list[str]:
    """The options for TensorBoard: it shows all steps of everything that is drawn, to this machine only."""
    # 0 is documented to keep all, but keeps none in TensorBoard 2.21.
    kept = ",".join(f"{plugin}=1000000" for plugin in ("images", "text", "pr_curves", "scalars"))
    return ["--logdir", str(directory), "--host", "127.0.0.1", "--port", str(port), f"--samples_per_plugin={kept}"]


def wait() -> None:
    """Waits for Ctrl-C."""
    # One endless wait would not end on a signal that another thread receives, or that comes a moment before.
    while True:
        time.sleep(0.5)
