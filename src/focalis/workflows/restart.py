"""The plan of a training that begins once more because it found nothing."""

from __future__ import annotations

from focalis.planning import Plan
from focalis.planning.parts import loss_settings


def safer(plan: Plan) -> Plan:
    """A plan that finds something sooner: half the learning rate, and another loss in place of the default one.

    Soft Dice then counts only the classes that a patch holds: of an empty patch it rewards nothing but silence
    (decision 0017).
    """
    training = plan.training.model_copy(update={"learning_rate": plan.training.learning_rate / 2})
    silent = plan.loss.name == "dice_cross_entropy"
    loss = loss_settings("present_dice_cross_entropy") if silent else plan.loss
    return plan.model_copy(update={"loss": loss, "training": training})


def differences(plan: Plan, other: Plan) -> str:
    """What `safer` changed, in words."""
    loss = "" if plan.loss == other.loss else f"the loss {other.loss.name} and "
    return f"{loss}a peak of the learning rate of {other.training.learning_rate:g}"
