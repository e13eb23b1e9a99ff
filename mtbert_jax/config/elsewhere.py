"""What other trainers call the fields of a config, for those who bring a command or a config from there."""

from collections.abc import Collection

ELSEWHERE = {
    "--batch-size": "train-batch-size per-device-train-batch-size per-gpu-train-batch-size per-device-batch-size bs",
    "--cache-dir": "cache data-cache-dir dataset-cache-dir",
    "--checkpoint-metric": "metric-for-best-model monitor best-metric greater-is-better load-best-model-at-end",
    "--compute-dtype bfloat16": "fp16 bf16 amp mixed-precision precision dtype torch-dtype half autocast",
    "--data-dir": "data data-path data-root dataset dataset-dir dataset-name",
    "--encoder": "transformer-model model model-name model-name-or-path pretrained-model-name-or-path "
    "bert-model base-model checkpoint "
    "pretrained model-path encoder-name",
    "--encoder-dropout": "hidden-dropout-prob attention-probs-dropout-prob attention-dropout hidden-dropout",
    "--epochs": "num-epochs num-train-epochs n-epochs max-epochs train-epochs epoch ep",
    "--eval-batch-size": "per-device-eval-batch-size per-gpu-eval-batch-size test-batch-size val-batch-size",
    "--eval-every-steps": "eval-strategy evaluation-strategy eval-steps eval-every eval-interval "
    "val-check-interval evaluation-steps",
    "--freeze encoder": "freeze-encoder freeze-bert freeze-backbone fine-tune-mode option",
    "--head.dropout": "dropout classifier-dropout head-dropout dropout-rate",
    "--head.pooling": "pooling pooling-mode pooler",
    "--log-every-steps": "logging-steps log-steps log-every log-interval log-every-n-steps print-every",
    "--lora.rank": "lora-r lora-rank lora-dim lora use-lora use-peft peft",
    "--lora.alpha": "lora-alpha",
    "--lora.paths": "lora-target-modules target-modules lora-target",
    "--lr": "learning-rate base-lr peak-lr max-lr lr-rate init-lr",
    "--max-length": "max-seq-length max-seq-len max-sequence-length seq-length seq-len max-len max-tokens block-size",
    "--max-length (and --lengths)": "pad-to-max-length padding",
    "--micro-batches": "gradient-accumulation-steps accumulate-grad-batches grad-accum accumulation-steps accum-steps "
    "grad-accumulation-steps",
    '--optimizer "pcgrad()" "adamw(lr, weight_decay=0.01)", a list of calls': "optim optimizer-name weight-decay wd",
    '--optimizer "pcgrad()" "clip_by_global_norm(1.0)" "adamw(lr)", a list of calls': "max-grad-norm clip-grad-norm "
    "gradient-clip-val grad-clip clip clip-grad max-norm",
    "--order": "sampling sampling-strategy task-sampling multi-dataset-batch-sampler batch-sampler sampling-smoothing "
    "train-sampling-strategy group-by-length",
    "--out": "output-dir output out-dir output-path save-dir save-path run-dir log-dir logdir logging-dir "
    "default-root-dir filepath",
    "--overwrite": "overwrite-output-dir overwrite-output force",
    "--parallel.data": "n-gpu num-gpus gpus devices num-devices",
    "--patience": "early-stopping-patience early-stopping early-stop",
    "--remat": "gradient-checkpointing grad-checkpointing activation-checkpointing",
    "--resume": "resume-from-checkpoint resume-from continue restore",
    "--revision": "model-revision",
    "--save-every-steps": "save-strategy save-total-limit save-steps save-every save-interval checkpoint-every "
    "checkpointing-steps",
    "--schedule": "lr-scheduler-type lr-scheduler scheduler lr-schedule scheduler-type",
    "--seed": "random-seed rng-seed data-seed manual-seed",
    "--smart.weight": "smart-weight lambda-s smart-lambda adv-weight",
    "--steps": "max-steps num-steps num-train-steps train-steps total-steps n-steps iterations num-iterations",
    "--tasks.NAME.classes or --tasks.NAME.num-classes": "num-labels num-classes n-classes labels",
    "--tasks.NAME.kind": "task-type problem-type",
    "--tasks.NAME.train": "train-data-path train-dataset train-file train-data train-path train-data-file",
    "--tasks.NAME.dev": "validation-data-path dev-data-path eval-dataset validation-file dev-file eval-file "
    "val-file valid-file eval-data-file",
    "--tasks.NAME.test": "test-file test-path test-data",
    "--tasks.NAME.label": "column-idx label-column label-column-name target-column",
    "--tasks.NAME.loss-weight": "loss-weight loss-weights task-weights",
    "--tasks.NAME.text": "sent-idxs word-idx text-column text-column-name text-columns text-column-names",
    "--warmup-fraction, a share of the steps": "warmup-ratio warmup-proportion warmup-steps num-warmup-steps warmup "
    "warmup-epochs lr-warmup-steps",
    "--writers": "report-to logger loggers wandb tensorboard use-wandb",
    "the config itself, first and without a flag": "config config-file config-path cfg yaml",
    "the environment variable JAX_PLATFORMS (cpu, cuda)": "device use-gpu no-cuda cuda use-cpu gpu accelerator",
    "one of the commands train, evaluate and predict": "do-train do-eval do-predict mode",
}
"""What other trainers call a flag or a field, by the flag to give here instead, or what else to do."""
HINTS = {name: ours for ours, names in ELSEWHERE.items() for name in names.split()}


def field_for(key: object, fields: Collection[str]) -> str:
    """The field that a table with these `fields` has for another trainer's `key`, or what else to use; or nothing.

    >>> field_for("learning_rate", ["epochs", "lr"]), field_for("task_type", ["kind"]), field_for("bs", ["kind"])
    ('lr', 'kind', '')
    >>> field_for("lora_r", ["lora"]), field_for("task_type", ["tasks"]), field_for("no_cuda", [])
    ('lora.rank', 'kind in [[tasks]]', 'the environment variable JAX_PLATFORMS (cpu, cuda)')
    """
    hint = HINTS.get(str(key).replace("_", "-").lower(), "")
    if not hint.startswith("--"):
        return hint
    path = hint.split()[0].strip("-,").replace("-", "_")
    first, _, last = path.replace("tasks.NAME.", "tasks.").rpartition(".")
    if last in fields:
        return last
    if first == "tasks" and "tasks" in fields:
        return f"{last} in [[tasks]]"
    return path if first in fields else ""
