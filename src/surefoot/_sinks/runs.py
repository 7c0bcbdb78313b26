"""A run of a study to a tracker: a run there for each seed of each part."""

from __future__ import annotations

from surefoot._run.folder import RunFolder


def send_run(folder: RunFolder, tracker: str) -> None:
    """Hand over every part that has a record.

    Parameters
    ----------
    folder
        A run that has ended.
    tracker
        As in `Record.to`. TensorBoard's files go beside the runs, into `tensorboard`.
    """
    place = folder.path.parent.parent / "tensorboard" if tracker == "tensorboard" else None
    made = folder.certificates()
    for part in folder.parts:
        mine = [c for c in made if c.part == part]
        folder.record(part).to(
            tracker,
            place,
            project=folder.study,
            run=f"{folder.path.name} {part}",
            certificates=mine,
        )
