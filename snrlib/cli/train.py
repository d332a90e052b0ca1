"""``snr train``: one experiment without a notebook, also on several processes; ``snr pretrain``: weights for one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from snrlib.cli.notebooks import values_of
from snrlib.notebooks.crates import command_of, values_of_run
from snrlib.notebooks.parameters import parameters
from snrlib.utils.crate import check_no_other_crate, write_crate
from snrlib.utils.files import data_folder, json_text, write_json
from snrlib.utils.provenance import provenance

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the group's subcommand to those of ``argparse``."""
    one = commands.add_parser("train", help="train and judge without a notebook, also on several processes (torchrun)")
    one.set_defaults(do=_train)
    one.add_argument("-p", dest="values", action="append", default=[], metavar="NAME=VALUE", help="as for notebook 07")
    one.add_argument(
        "-o", dest="folder", required=True, metavar="FOLDER", help="for result, scores, model, checkpoints"
    )
    one.add_argument("--workers", type=int, default=0, help="processes that load images (default: 0, none beside this)")
    one = commands.add_parser("pretrain", help="train a classifier of Tiny ImageNet: weights for others to start from")
    one.set_defaults(do=_pretrain)
    one.add_argument("network", metavar="NETWORK", help="alexnet or resnet18")
    one.add_argument("--data", choices=["tinyimagenet"], default="tinyimagenet", help="that is classified")
    one.add_argument("--classes", type=int, default=200, metavar="N", help="200, or the first 100 (default: 200)")
    one.add_argument("--size", type=int, metavar="PX", help="side of the images (default: alexnet 127, resnet18 64)")
    one.add_argument("--steps", type=int, metavar="N", help="batches of 128 (default: two core hours of them)")
    one.add_argument("--root", metavar="FOLDER", help="of the data (default: SNR_DATA, else data/raw)")


def _train(options: argparse.Namespace) -> int:
    from snrlib.experiment import FILES, experiment
    from snrlib.study.tuned import from_parameters
    from snrlib.train.processes import process_group, rank, world_size

    given = values_of("07", options.values)
    chosen = {name: known.default for name, known in parameters("07").items()} | given
    folder = Path(options.folder)
    result, checkpoints = folder / "result.json", folder / "checkpoints"
    names = ["result.json"] if checkpoints.exists() else ["result.json", *FILES]  # ours, of a training that was killed
    if taken := [name for name in names if (folder / name).exists()]:
        raise FileExistsError(f"{folder} holds {', '.join(taken)}; choose another folder")
    check_no_other_crate(folder)
    with process_group() as device:
        first = rank() == 0
        done = experiment(
            from_parameters(chosen),
            checkpoints,
            device,
            workers=options.workers,
            progress=first and sys.stderr.isatty(),
        )
        if first:
            done.save(folder, model=True)
            row = {"parameters": chosen, "processes": world_size(), "experiment": done.row()}
            row |= {"data": done.fingerprints, **provenance()}
            write_crate(
                folder,
                f"Training of {done.settings.backbone} on {done.settings.data}",
                {"result.json": "parameters, versions and numbers", **FILES},
                row | {"wall_time_s": done.wall_time_s},
                command=command_of("snr train", "07", given),
                values=values_of_run("07", given),
                coming={"result.json": json_text(row)},
            )
            write_json(result, row)
            print(f"{done}\n  {folder}")
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    from snrlib.study.pretraining import pretrain

    sizes = {"classes": options.classes, "size": options.size, "steps": options.steps}
    row = pretrain(options.network, root=options.root, progress=sys.stderr.isatty(), **sizes)
    print(
        f"{row['network']}, {row['steps']} steps, {row['classes']} classes: top-1 {row['top_1']:.3f} "
        f"on {row['images']} validation images\n  {data_folder('cache') / 'pretrained' / row['weights']}"
    )
    return 0
