"""MPFT on Flower's Message API: one round of uploads, training on the server, one adapter for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from logging import INFO, getLogger
from typing import Any

from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.errors import SurefootError, need
from surefoot.prototypes._client.threads import one_thread
from surefoot.prototypes._server.drawing import Sampler
from surefoot.prototypes._upload.refusal import Asked
from surefoot.prototypes.accuracy import AccuracyMatrix
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.certificates import of_federation
from surefoot.prototypes.doors import told
from surefoot.prototypes.doors.asking import Asking, words_of_adaptation, words_of_upload
from surefoot.prototypes.doors.messages import ARRAYS, DRY, adapter_of, parameters
from surefoot.prototypes.doors.options import check_start, training_options
from surefoot.prototypes.doors.uploads import Upload, enough, read_upload
from surefoot.prototypes.gaussian_release import GaussianRelease, check_method_of_release
from surefoot.prototypes.guarantee import DIFFERING
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.pooled import differing_from_pooled
from surefoot.prototypes.prototype_set import METHODS, PrototypeSet
from surefoot.prototypes.server_training import ServerReport, Solver, train_global_adapter
from surefoot.record import Record

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Result

    from surefoot.federated.guarantee import downlink
    from surefoot.federated.records import fingerprint, to_arrays
    from surefoot.federated.strategy import MOST_SAID, DeterministicFedAvg

logger = getLogger("flwr")


@checked
class MPFTStrategy(DeterministicFedAvg):
    """One round of prototypes, and an optional second one in which every site adapts for itself.

    Round 1 waits for all clients and asks each for its upload ("train.prototypes"). Uploads that are not
    finite, of another dimension, encoder, dtype, method or release, or that contradict themselves, are
    dropped by name; the others are sorted by partition and trained on as `train_global_adapter` does. In the
    evaluate phase every node that is online gets the adapter, and says how good it is on its held-out records
    unless that is private. Round 2 ("train.adapt") leaves the global adapter as it is.

    Parameters
    ----------
    head
        The frozen classifier; its dtype is that of all uploads.
    num_clients
        Who is awaited, at most `node_timeout` seconds; then MissingNodesError names the missing.
    min_clients
        Good uploads that suffice; by default all.
    node_timeout
        In seconds.
    epochs
        Of the training, at most; by default 200, and with `dp` 1,000 steps at a constant step size instead.
    seed
        Of sampling at the clients and training at the server; noise has no seed.
    sampler
        As in `train_global_adapter`.
    method, ratio, min_cluster
        As in `extract_prototypes`.
    dp
        The release that every client makes.
    encoder_id
        Name or hash of the encoder; None: the one of most uploads.
    classes
        Names of the classes in the order of the head, by which clients number theirs; (): numbers are shared.
    lr, batch_size, solver, steps, early_stop, residual, hidden
        As in `train_global_adapter`.
    adapt_shots, kd_weight, adapt_epochs
        Of round 2, as shots, kd_weight and epochs in `adapt_locally`; 0 shots: no round 2.
    evaluate
        Whether clients send accuracies back; None: unless the uploads are private, since what depends on
        records is a release of its own. True with `dp` is said in the record, and G2 is then not promised.
    round_timeout
        Seconds to wait for replies.
    most_records
        That a client may claim: features are drawn by its counts.
    record
        Where all goes; None: a new one.

    Attributes
    ----------
    sets
        {partition: upload} that were trained on.
    training_report
        Of the training; None before it.
    told
        {partition: what it said of its upload}: coverage, audit, without `dp` only.
    accuracy
        Of the global adapter by domain, in the last evaluate phase; None where nobody said.
    delivered
        Partitions that took the adapter.

    Raises
    ------
    ValueError
        An option outside its range, or options that exclude each other: before anybody has sent anything.
    """

    def __init__(
        self,
        head: ZeroShotHead,
        num_clients: int,
        min_clients: int | None = None,
        node_timeout: float = 120.0,
        epochs: int | None = None,
        seed: int = 0,
        sampler: Sampler = None,
        *,
        method: str = "cluster_var",
        ratio: float = 0.1,
        min_cluster: int = 2,
        dp: GaussianRelease | None = None,
        encoder_id: str | None = None,
        classes: Sequence[str] = (),
        lr: float = 1e-3,
        batch_size: int = 10,
        solver: Solver = "adamw",
        steps: int | None = None,
        early_stop: bool = True,
        residual: bool = True,
        hidden: int | None = None,
        adapt_shots: int = 0,
        kd_weight: float = 1.0,
        adapt_epochs: int = 10,
        evaluate: bool | None = None,
        round_timeout: float = 3600.0,
        most_records: int = 1_000_000,
        record: Record | None = None,
    ) -> None:
        num_clients = check_number("num_clients", num_clients, least=1, whole=True)
        least = num_clients if min_clients is None else min_clients
        least = check_number("min_clients", least, least=1, most=num_clients, whole=True)
        super().__init__(
            num_clients, seed=check_number("seed", seed, least=0, whole=True), min_nodes=least,
            node_timeout=node_timeout, round_timeout=round_timeout, record=record,
        )  # fmt: skip
        check_choice("method", method, METHODS)
        check_method_of_release(method, dp)
        if sampler == "additive" and method != "mean":
            raise ValueError(f'the additive sampler is for method "mean", got {method!r}')
        self.training: dict[str, Any] = training_options(
            dp, epochs, steps, early_stop, self.seed, lr=lr, batch_size=batch_size, solver=solver,
            sampler=sampler, residual=residual, hidden=hidden,
        )  # fmt: skip
        self.head, self.dp, self.classes = head, dp, tuple(classes)
        if self.classes and len(self.classes) != head.classes:
            raise ValueError(
                f"classes must name the {head.classes} of the head, got {len(self.classes)}"
            )
        if encoder_id is not None and not isinstance(encoder_id, str):
            raise ValueError(f"encoder_id must be a name or None, got {encoder_id!r}")
        self.asked = Asked(
            method, check_number("ratio", ratio, above=0, most=1), dp, head.d, head.classes,
            head.weight.dtype, encoder_id,
            check_number("most_records", most_records, least=1, whole=True), sampler == "additive",
        )  # fmt: skip
        self.min_cluster = check_number("min_cluster", min_cluster, least=1, whole=True)
        self.adapt_shots = check_number("adapt_shots", adapt_shots, least=0, whole=True)
        self.kd_weight = check_number("kd_weight", kd_weight, least=0)
        self.adapt_epochs = check_number("adapt_epochs", adapt_epochs, least=1, whole=True)
        check_choice("evaluate", evaluate, (True, False, None))
        self.evaluate = dp is None if evaluate is None else evaluate
        self.sets: dict[int, PrototypeSet] = {}
        self.training_report: ServerReport | None = None
        self.told: dict[int, dict[str, Any]] = {}
        self.accuracy: AccuracyMatrix | None = None
        self.delivered: list[int] = []
        self._read: dict[int, Upload] = {}
        self._dry: dict[int, str] = {}
        self._asking = Asking(head, self.classes, parameters(self.initial_adapter()))

    def initial_arrays(self) -> ArrayRecord:
        """What `start` takes: the adapter before training."""
        return to_arrays(parameters(self.initial_adapter()))

    def initial_adapter(self) -> ResidualAdapter:
        """The adapter before training."""
        hidden = self.training["hidden"]
        return ResidualAdapter(self.head.d, hidden, seed=self.seed, dtype=self.head.weight.dtype)

    def start(self, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any) -> Result:
        """One round, or two where `adapt_shots` were asked for; other numbers are refused.

        Training starts from `initial_arrays()`; what a round asks for is this strategy's own, and no
        configuration of Flower's is read.

        Raises
        ------
        ValueError
            More rounds, a second one without shots, other arrays to start from, or a configuration.
        SurefootError
            Fewer good uploads than `min_clients`; what was wrong with the others is named.
        """
        wanted = check_start(initial_arrays, self.initial_arrays(), self.adapt_shots, args, kwargs)
        if not args:
            kwargs["num_rounds"] = wanted
        return super().start(grid, initial_arrays, *args, **kwargs)

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """G1 to G6 of this run, and the bytes down."""
        down = downlink()
        todo = "the server counts what it sends"
        made = (
            certify(self.record, down, confidence)
            if down.quantity in self.record
            else unmeasured(self.record, down, todo)
        )
        return [*of_federation(self.record, confidence), made]

    def compare_with_pooled(self, feats: Any, y: Any) -> int:
        """Weights that differ from training on the pooled records of all clients, also in the record (G1).

        Parameters
        ----------
        feats, y
            (N, d) embeddings and (N,) classes of all clients, in partition order.

        Raises
        ------
        SurefootError
            Nothing was trained yet.
        """
        if self.training_report is None:
            raise SurefootError("compare_with_pooled compares what was trained: run `start` first")
        adapter = adapter_of(RecordDict({ARRAYS: to_arrays(self.state)}))
        first = next(iter(self.sets.values()))
        with one_thread():
            count = differing_from_pooled(adapter, first, feats, y, self.head, **self.training)
        self.record.update(self.seed, 0, {DIFFERING: count})
        return count

    def summary(self) -> None:
        """Log the settings."""
        logger.log(
            INFO, "\t%s clients, at least %s good uploads, method %s, ratio %s, %s",
            self.num_partitions, self.min_nodes, self.asked.method, self.asked.ratio,
            self.dp or "no noise",
        )  # fmt: skip

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask all clients for their uploads, or in round 2 who is online to adapt.

        Raises
        ------
        MissingNodesError
            Clients did not come; they are named.
        SurefootError
            This strategy runs inside another one.
        """
        if not self._own_run:
            raise SurefootError(
                "MPFTStrategy must be started itself: a strategy around it, as Flower's DifferentialPrivacy "
                "wrappers, clips and noises updates of a model, which nobody sends here; for privacy give "
                "dp=GaussianRelease(...)"
            )
        self.take(arrays)
        first = server_round == 1
        if first:
            self.history.note(
                runtime="flower", num_partitions=self.num_partitions, min_clients=self.min_nodes,
                evaluate=self.evaluate,
            )  # fmt: skip
        online = self.wait_for(grid, self.num_partitions if first else self.min_nodes)
        report = self.history.round(server_round)
        for partition in sorted(set(range(self.num_partitions)) - set(online)):
            report.lost[partition] = "its node is not online"
        words = (
            words_of_upload(self.seed, self.asked, self.min_cluster)
            if first
            else words_of_adaptation(self.seed, self.adapt_shots, self.kd_weight, self.adapt_epochs)
        )
        self._sent = {node: p for p, node in online.items()}
        kind = "train.prototypes" if first else "train.adapt"
        payload = None if first else arrays
        return [self._asking.message(report, n, kind, words, payload) for n in sorted(self._sent)]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Train on the good uploads; round 2 changes nothing.

        Raises
        ------
        SurefootError
            Fewer good uploads than `min_clients`, uploads of two encoders equally often, or a dry run of all.
        """
        report = self.history.round(server_round)
        if server_round > 1:
            report.partitions = sorted(told.answers(replies, self._sent, report))
            return to_arrays(self.state), None
        self._read, self._dry = {}, {}
        _, numbers = self.checked(server_round, replies)
        # A node whose reply is an error may have lost the head as well.
        self._asking.forget({n for n, p in self._sent.items() if p in report.lost})
        # An upload whose facts were refused is none.
        read = {p: upload for p, upload in self._read.items() if p in numbers}
        kept = enough(read, self._dry, self.min_nodes, self.num_partitions, report)
        self.sets = {p: upload.protos for p, upload in kept.items()}
        with one_thread():
            adapter, self.training_report = train_global_adapter(
                list(self.sets.values()), self.head, **self.training
            )
        self.told = {p: numbers[p] for p in kept}
        wire = sum(upload.size for upload in kept.values())
        told.write_training(self.history, self.training_report, self.sets, wire)
        noise = [v for upload in kept.values() for v in upload.noise]
        told.write_noise(self.history, noise, self.dp, self.evaluate)
        self._read = {}
        arrays = to_arrays(parameters(adapter))
        self._given = fingerprint(arrays)
        return arrays, told.mean_record(self.told)

    def _content(
        self, server_round: int, reply: Message, partition: int
    ) -> tuple[dict[str, Tensor], float, dict[str, float]]:
        """The numbers of a reply; its upload is put aside, as it is no state."""
        content, report = reply.content, self.history.round(server_round)
        numbers, examples = told.numbers_of(content, partition)
        if DRY in content.config_records:
            self._dry[partition] = str(content.config_records[DRY].get("file", ""))[:MOST_SAID]
            return {}, examples, numbers
        self._read[partition] = read_upload(content, examples, self.asked, report)
        return {}, examples, numbers

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the adapter to everyone who is online."""
        self._sent = {n: p for p, n in self.discover(grid, 30.0).items()}
        words = {"score": self.evaluate}
        report = self.history.round(server_round)
        return [
            self._asking.message(report, n, "evaluate", words, arrays) for n in sorted(self._sent)
        ]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Accuracies by domain, where they were asked for; then the round is closed."""
        report = self.history.round(server_round)
        found = told.answers(replies, self._sent, report)
        self.delivered = sorted(found)
        asked = found if self.evaluate else {}
        self.accuracy = told.write_scores(self.history, server_round, asked)
        self.history.close(
            server_round, bytes_down=report.bytes_down, promised_bytes_down=self._asking.promised()
        )
        metrics = self.history.metrics.get(server_round)
        return MetricRecord(dict(metrics)) if metrics else None
