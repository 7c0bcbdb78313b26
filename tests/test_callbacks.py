"""`WatchCallback` under transformers' Trainer, and its like under Lightning's: numbers of a plain loop."""

import copy

import numpy as np
import pytest
import torch
from tests.test_watch_wrapped import BATCHES, X, Y, network, plain
from torch import nn

from surefoot import Guarantee, Verdict
from surefoot.errors import SurefootError


class Rows(torch.utils.data.Dataset):
    """The rows of the plain loop, as a Trainer takes them."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return {"x": X[i], "labels": Y[i]}


class Model(nn.Module):
    """Returns its loss, as models of transformers do."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x, labels=None):
        y = self.inner(x)
        return {"loss": nn.functional.mse_loss(y, labels), "logits": y}


def falling(last):
    return Guarantee(
        "falls", "loss_t <= c", "by hand", "loss", "upper", "every run",
        lambda record: np.full(record["loss"].shape, last),
    )  # fmt: skip


@pytest.fixture
def train(tmp_path):
    """Train with a Trainer in the order of the rows."""
    transformers = pytest.importorskip("transformers", reason="needs the llm extra")

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *args, **kwargs):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    def run(callback, resume=None, **arguments):
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, max_grad_norm=0.0,
            lr_scheduler_type="constant", learning_rate=0.1, label_names=["labels"],
            **{
                "save_strategy": "no", "per_device_train_batch_size": 8, "logging_steps": 1,
                "num_train_epochs": 1, **arguments,
            },
        )  # fmt: skip
        model = Model()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = InOrder(
            model=model, args=arguments, train_dataset=Rows(), eval_dataset=Rows(), callbacks=[callback],
            optimizers=(sgd, torch.optim.lr_scheduler.LambdaLR(sgd, lambda _: 1.0)),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


def test_a_training_of_a_trainer(train):
    from surefoot.callbacks import WatchCallback

    callback = WatchCallback(("gradient_norm", "lr"), every=1)
    with pytest.raises(SurefootError, match="nothing is watched yet"):
        callback.record  # noqa: B018
    train(callback, eval_strategy="steps", eval_steps=2)
    losses, norms = plain(BATCHES)
    record = callback.record
    np.testing.assert_allclose(
        record["loss"][0], losses, atol=6e-5
    )  # the Trainer rounds to 4 digits
    np.testing.assert_allclose(record["gradient_norm"][0], norms, rtol=1e-5)
    # Newer versions evaluate at the end as well.
    assert record.curves("eval_loss").steps.tolist() in ([1], [1, 2])
    assert record.facts["optimizer"].all == ("SGD",)
    assert callback.certify(falling(100.0)).verdict is Verdict.KEPT
    assert callback.certify(falling(min(losses))).verdict is Verdict.BROKEN


def test_measures_under_a_trainer(train):
    """All rows a step: gradients are those of the objective, and what is promised of them is offered."""
    from surefoot.callbacks import WatchCallback

    objective = lambda: nn.functional.mse_loss(watching.watch._model.inner(X), Y)  # noqa: E731 - as a user writes it
    watching = WatchCallback(
        ("smoothness", "noise", "stationarity"), every=1, objective=objective, overhead=float("inf")
    )
    train(watching, per_device_train_batch_size=len(X), num_train_epochs=4)
    assert watching.record.curves("objective").steps.tolist() == [0, 1, 2, 3]
    # Older Trainers round to 4 digits.
    np.testing.assert_allclose(watching.record["objective"], watching.record["loss"], atol=6e-5)
    said = {o.name: o.why_not for o in watching.offered()}
    assert "pass f_star=" in said["linear rate"]
    assert all(c.verdict in Verdict for c in watching.certificates())


def test_measures_of_a_callback_need_an_objective():
    pytest.importorskip("transformers", reason="needs the llm extra")
    from surefoot.callbacks import WatchCallback

    with pytest.raises(ValueError, match="objective must be the loss over all data"):
        WatchCallback(("smoothness",))


def test_accumulated_batches_of_a_trainer_are_one_step(train):
    from surefoot.callbacks import WatchCallback

    callback = WatchCallback(("gradient_norm",), every=1)
    train(callback, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    _, norms = plain(BATCHES)
    assert callback.watch.step == 3
    np.testing.assert_allclose(callback.record["gradient_norm"][0], norms, rtol=1e-5)


def test_a_loss_over_several_steps_has_a_name_of_its_own(train):
    from surefoot.callbacks import WatchCallback

    callback = WatchCallback()
    train(callback, logging_steps=3)
    losses, _ = plain(BATCHES)
    assert "loss" not in callback.record
    found = callback.record.curves("mean loss")
    assert found.steps.tolist() == [2]
    assert found.values[0, 0] == pytest.approx(np.mean(losses), abs=6e-5)


def test_a_training_that_resumes_is_recorded_from_its_step_on(train):
    from surefoot.callbacks import WatchCallback

    train(WatchCallback(), num_train_epochs=1, save_strategy="steps", save_steps=2)
    callback = WatchCallback(("gradient_norm",), every=1)
    train(callback, resume=True, num_train_epochs=2)
    assert callback.record.curves("gradient_norm").steps.tolist() == [3, 4, 5]
    assert callback.record.curves("loss").steps.tolist() == [3, 4, 5]


@pytest.fixture
def fit(tmp_path):
    """Train with Lightning's Trainer in the order of the rows."""
    lightning = pytest.importorskip("lightning.pytorch", reason="needs the lightning extra")

    class Module(lightning.LightningModule):
        def __init__(self, optimizers=1):
            super().__init__()
            self.inner, self.count = network(), optimizers
            self.automatic_optimization = optimizers == 1

        def training_step(self, batch, index):
            loss = nn.functional.mse_loss(self.inner(batch[0]), batch[1])
            if self.count > 1:
                for optimizer in self.optimizers():
                    optimizer.zero_grad()
                self.manual_backward(loss)
                self.optimizers()[1].step()
            return loss

        def validation_step(self, batch, index):
            self.log("val", nn.functional.mse_loss(self.inner(batch[0]), batch[1]))

        def configure_optimizers(self):
            rates = (0.01, 0.1) if self.count > 1 else (0.1,)
            return [torch.optim.SGD(self.inner.parameters(), lr=r) for r in rates]

    def run(callback, batch=8, optimizers=1, **settings):
        rows = torch.utils.data.TensorDataset(X, Y)
        loader = torch.utils.data.DataLoader(rows, batch_size=batch)
        trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, max_epochs=1, callbacks=[callback],
            **settings,
        )  # fmt: skip
        trainer.fit(Module(optimizers), loader, copy.copy(loader))

    return run


@pytest.mark.filterwarnings(
    "ignore:.*(num_workers|does not have many workers|LeafSpec|deprecated).*"
)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_training_of_lightning(fit, accumulated):
    from surefoot.callbacks import LightningWatchCallback

    callback = LightningWatchCallback(("gradient_norm",), every=1)
    fit(callback, 8 // accumulated, accumulate_grad_batches=accumulated)
    losses, norms = plain(BATCHES)
    assert callback.watch.step == 3
    np.testing.assert_allclose(callback.record["loss"][0], losses, rtol=1e-5)
    np.testing.assert_allclose(callback.record["gradient_norm"][0], norms, rtol=1e-5)
    assert callback.record.curves("val").steps.tolist() == [2]
    assert callback.certify(falling(100.0)).verdict is Verdict.KEPT


@pytest.mark.filterwarnings(
    "ignore:.*(num_workers|does not have many workers|LeafSpec|deprecated).*"
)
def test_several_optimizers_of_lightning(fit):
    from surefoot.callbacks import LightningWatchCallback

    with pytest.raises(
        SurefootError, match="has 2 optimizers: optimizer must be between 0 and 1, got None"
    ):
        fit(LightningWatchCallback(), optimizers=2)
    callback = LightningWatchCallback(("gradient_norm", "lr"), every=1, optimizer=1)
    fit(callback, optimizers=2)
    assert callback.record["lr"][0].tolist() == [0.1] * 3
    np.testing.assert_allclose(callback.record["gradient_norm"][0], plain(BATCHES)[1], rtol=1e-5)
