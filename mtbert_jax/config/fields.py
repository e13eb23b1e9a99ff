"""What a run is: frozen dataclasses, read from TOML, overridden on the command line, stored in checkpoints.

The dataclasses are the schema. `from_dict` is the one strict reader, for TOML files and checkpoints alike.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    Data: TypeAlias = Any
else:  # what a config file can hold; in Python also rows in memory, which `mtbert_jax.train` writes to a file
    Data = str
Order = Literal["sequential", "round_robin", "proportional", "annealed", "temperature"]
Schedule = Literal["constant", "linear", "cosine"]
Pooling = Literal["cls", "mean", "pair", "towers", "both"]


@dataclass(frozen=True)
class HeadConfig:
    """One feed-forward head: `hidden_layers` times (dense, ReLU, dropout), then a dense output layer."""

    hidden_layers: int = 1
    """Number of hidden layers; 0 is a linear head."""
    hidden_size: int = 0
    """Width of the hidden layers; 0 takes the encoder's hidden size."""
    dropout: float = 0.2
    """Dropout rate after every hidden layer."""
    pooling: Pooling = "cls"
    """What the head reads: `cls`, the pooler's output (the paper); `mean`, the mean of all token states; `pair`, for
    two texts: the mean of each one's, u and v, with |u - v| and u v; `towers`: the same of texts that the encoder
    reads apart, and their cosine; `both`: `pair` and `towers`."""


@dataclass(frozen=True)
class SmartConfig:
    """Adversarial smoothness, SMART's R_s (Jiang et al. 2020). A number left out is the preset's."""

    weight: float = 0.0
    """λ_s, the weight of the smoothness term; 0 turns it off."""
    preset: Literal["ball", "paper", "smart_pytorch", "mtdnn"] = "ball"
    """`ball`: noise stays in a ball of radius ε; `paper`: the same with the paper's numbers, far smaller ones;
    `smart_pytorch`, `mtdnn`: every token's noise has norm ε."""
    norm: Literal["inf", "2", "1"] = "inf"
    """Norm of a token's noise."""
    radius: float | None = None
    """ε, the largest norm of a token's noise (`ball` .1, `paper` 1e-5), or its norm (`smart_pytorch`, `mtdnn` 1)."""
    noise_std: float | None = None
    """σ, standard deviation of the noise at the start (1e-5)."""
    step_size: float | None = None
    """η, step size of the ascent (`ball` .1, `paper`, `smart_pytorch` 1e-3, `mtdnn` 1e-5)."""
    steps: int = 1
    """K, steps of the ascent; 0 leaves the noise random."""
    ramp_fraction: float = 0.0
    """Share of the stage's steps during which the weight rises linearly from 0."""
    resample_dropout: bool = False
    """Whether the perturbed side draws dropout masks of its own, rather than those of the clean side."""


@dataclass(frozen=True)
class ProximalConfig:
    """Bregman proximal point, SMART's D_Breg: outputs stay near those of a teacher made of earlier parameters."""

    weight: float = 0.0
    """μ, the weight of the proximal term; 0 turns it off."""
    teacher: Literal["momentum", "vanilla"] = "momentum"
    """`momentum`: a moving average of the parameters (mean teacher); `vanilla`: those of some steps ago."""
    momentum: float = 0.999
    """β, share of the moving average that stays in each step."""
    early_momentum: float = 0.99
    """β during the first steps."""
    early_fraction: float = 0.1
    """Share of the stage's steps that are the first ones."""
    anchor_every_steps: int = 10
    """`vanilla`: steps after which the teacher becomes what the parameters are then; 2 or more."""


@dataclass(frozen=True)
class LoraConfig:
    """LoRA (Hu et al. 2021): in place of the encoder's parameters train products of low rank beside some kernels."""

    rank: int = 0
    """r, rank of the products; 0 turns LoRA off, and the encoder itself trains."""
    alpha: float = 8.0
    """α: products are multiplied by α / r."""
    paths: tuple[str, ...] = ()
    """Which dense kernels have a product: prefixes of parameter paths, in which `*` is any text without a slash, such
    as `encoder/*/attention/query`; those of attention's queries and values if left out (ModernBERT's have the keys in
    them)."""


@dataclass(frozen=True)
class ParallelConfig:
    """Sizes of a mesh of devices; -1, for one of them, takes all devices that are left."""

    replica: int = 1
    """Devices, or groups of devices, that runs of several `seeds` are spread over."""
    data: int = -1
    """Devices that a batch's rows are spread over."""
    fsdp: int = 1
    """The same, with parameters, optimizer state, teacher and task gradients spread over them, too."""


@dataclass(frozen=True)
class TaskConfig:
    """One task: its files, their columns, and its head."""

    name: str = ""
    """Short name; also the prefix of the task's prediction files."""
    kind: str = "classification"
    """`classification` (cross entropy), `binary` (binary cross entropy), `regression` (squared error), `multilabel`
    (any number of classes), `distribution` (a probability for each class), `ranking` (CoSENT), `tokens` (a tag for
    each word), `masked_lm` (masked language modelling), `contrastive` (SimCSE), or a plugin's."""
    text: tuple[str, ...] = ("sentence",)
    """One text column, or two for a task over pairs."""
    label: str = "label"
    """The label's column. Where tasks have their labels in other columns of one file, a blank label is left out."""
    id: str = "id"
    """The identifier's column; an empty string numbers the rows from 0."""
    train: Data = ""
    """Training file, relative to `data_dir`: TSV, CSV, JSON Lines, a list of JSON objects, or `.conll`."""
    dev: Data = ""
    """Development file, relative to `data_dir`."""
    test: Data = ""
    """Test file, relative to `data_dir`; it may lack labels: the column, or in some rows a label other than -1."""
    num_classes: int = 0
    """`classification`, `distribution`: the number of classes; labels are then the integers below it."""
    quotes: bool = True
    """Fields of TSV and CSV files may be quoted; false takes every quote as text (GLUE's files)."""
    classes: tuple[str, ...] = ()
    """`classification`, `distribution`: names of the classes as they stand in the files, in place of `num_classes`;
    `multilabel`: the names; `tokens`: the types of spans."""
    label_range: tuple[float, ...] = ()
    """`regression`: smallest and largest label; a row outside is a bad row."""
    metric: str = ""
    """Primary metric, by which the task enters averages, tables and intervals: one of its kind's, such as `accuracy`,
    `f1` or `spearman`; the first of them if left out."""
    batch_size: int | None = None
    """Examples of this task in a batch; the run's `batch_size` if left out."""
    loss_weight: float = 1.0
    """Factor on this task's loss, and so on its gradient."""
    swap_pairs: float = 0.0
    """Two texts: share of training examples whose texts change places, drawn anew in every batch."""
    word_deletion: float = 0.0
    """Probability of each word of a training text to be left out, drawn anew in every batch; one word stays."""
    word_swap: float = 0.0
    """Share of the words of a training text that change places with each other, drawn anew in every batch."""
    both_orders: bool = False
    """Two texts: score every pair as (a, b) and as (b, a), on dev, on test and in `predict`, and take the mean of the
    logits. Evaluating this task takes twice as long; training does not change (see `swap_pairs`)."""
    whole_words: bool = False
    """`masked_lm`: hide all tokens of a word, or none, in place of single tokens."""
    temperature: float = 0.05
    """`contrastive`: τ, by which cosines are divided."""
    min_label: float | None = None
    """`contrastive`, of two texts: smallest `label` of a positive pair, such as 1 where labels are 0 and 1; other rows
    are left out. Without it every row is a positive pair, and no label is read."""
    output_column: str = ""
    """Name of the prediction column in prediction files of the course's format; without it they are plain CSV."""
    head: HeadConfig | None = None
    """The task's head, a whole table of which nothing is taken from the run's `head`; that one if left out."""
    max_length: int | None = None
    """Tokens after which an example of this task is cut off; the run's `max_length` if left out."""
    smart_factor: float = 1.0
    """Factor on `smart.weight` for this task; 0 turns SMART off here."""
    class_weights: tuple[float, ...] = ()
    """`classification`, `binary`: factor on the loss of each class, in order."""
    loss_balance: float = 0.0
    """0: every example weighs the same in the loss; 1: every class does, however rare; between: in between."""
    sampling_balance: float = 0.0
    """0: an epoch has every example once; 1: examples of rare classes repeat until all classes are as frequent."""


@dataclass(frozen=True)
class Task(TaskConfig):
    """A task with nothing left open: what its table left out is the run's."""

    head: HeadConfig = field(default_factory=HeadConfig)
    """The task's head."""
    max_length: int = 256
    """Tokens after which an example of this task is cut off."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of a run. What it leaves out it takes from the run's field of the same name."""

    name: str = ""
    """Name shown in records; `stage<N>` if left out."""
    tasks: tuple[str, ...] | None = None
    """Names of the tasks that the stage trains; all if left out. The heads of others stay as they are."""
    epochs: float | None = None
    """Length in epochs; one epoch sees as many examples as all tasks hold together."""
    steps: int | None = None
    """Length in optimizer steps, in place of `epochs`."""
    order: Order | None = None
    """Order of the tasks."""
    sampling_exponent: float | None = None
    """`temperature`: exponent of a task's size."""
    sampling_cap: int | None = None
    """`temperature`: examples beyond which a task counts no more."""
    batch_size: int | None = None
    """Examples of each task in a batch."""
    optimizer: tuple[str, ...] | None = None
    """The optax chain, as call strings."""
    lr: float | None = None
    """Peak learning rate: what `lr` means in the chain."""
    schedule: Schedule | None = None
    """How `lr` decays after warm-up."""
    warmup_fraction: float | None = None
    """Share of the stage's steps during which `lr` rises from 0."""
    freeze: tuple[str, ...] | None = None
    """Parameter paths that do not train, such as `encoder` or `encoder/embeddings`."""
    cache_features: bool | None = None
    """With the encoder frozen: run it once over the data, without dropout, and train the heads on what it gave."""
    smart: SmartConfig | None = None
    """Adversarial smoothness: a whole table, of which nothing is taken from the run's."""
    proximal: ProximalConfig | None = None
    """Bregman proximal point: a whole table, too."""
    regularizers: tuple[str, ...] | None = None
    """Further regularisers, as call strings."""


@dataclass(frozen=True)
class Stage:
    """A stage with nothing left open: what its table left out is the run's. `StageConfig` explains the fields."""

    name: str
    tasks: tuple[str, ...]
    """Names of the tasks that the stage trains, in the config's order."""
    epochs: float
    """Length in epochs; 0 where `steps` tells it."""
    steps: int
    """Length in optimizer steps; 0 where `epochs` tells it."""
    order: Order
    sampling_exponent: float
    sampling_cap: int
    batch_size: int
    optimizer: tuple[str, ...]
    lr: float
    schedule: Schedule
    warmup_fraction: float
    freeze: tuple[str, ...]
    cache_features: bool
    smart: SmartConfig
    proximal: ProximalConfig
    regularizers: tuple[str, ...]

    @property
    def compares_tasks(self) -> bool:
        """Whether each step has several tasks, and trains the encoder that they share."""
        return self.order == "round_robin" and len(self.tasks) > 1 and "encoder" not in self.freeze


@dataclass(frozen=True)
class Config:
    """One training run."""

    encoder: str = ""
    """A directory in Hugging Face layout, or a hub name; if left out, that of `init_from`, or else
    google-bert/bert-base-uncased."""
    revision: str | None = None
    """Branch, tag or commit of a hub name."""
    init_from: str = ""
    """A run folder: the run begins with the encoder, the tokenizer and the heads of its best checkpoint. A head is
    taken by a task of the same name, kind, classes, pooling and shape; others begin fresh."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Type of the encoder's matrix products; parameters, softmax, LayerNorm, heads and losses stay float32. `auto`
    takes bfloat16 where the device has units for it."""
    encoder_dropout: float | None = None
    """Dropout inside the encoder, in place of the two rates in its config.json."""
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    """Attention's kernel: cuDNN's needs a GPU, bfloat16 and no dropout on attention; `auto` takes it where it runs."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Products of low rank beside kernels, in place of the encoder's own parameters."""
    remat: bool = False
    """Keep each layer's input only, and compute the layer again for its gradient: less memory, a third more work. On a
    CPU `mtbert train` then also gives freed memory back at once, in place of keeping it for the next step."""
    micro_batches: int = 1
    """Parts that each task's batch is computed in, one after the other, to need less memory; surgery sees the whole."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Devices."""

    tasks: tuple[TaskConfig, ...] = ()
    """The tasks."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """The head of every task that has none of its own."""
    data_dir: str = "."
    """Folder that the tasks' files are relative to."""
    max_length: int = 256
    """Tokens after which an example is cut off."""
    max_shapes: int = 8
    """Batches are padded to one of so many lengths, chosen to fit the data; each is compiled once."""
    lengths: tuple[int, ...] = ()
    """The lengths themselves, in place of those that `max_shapes` finds; `max_length` is always one of them."""
    bad_rows: Literal["error", "skip"] = "error"
    """A row that cannot be read stops the run, or is counted and left out."""
    cache_dir: str = ""
    """Folder of cached tokens; `mtbert_jax` in the user's cache folder if left out."""

    order: Order = "round_robin"
    """`sequential`: all batches of a task, then the next task's; `round_robin`: one batch of each task in every
    step; `proportional`: one task a step, drawn by its size; `annealed`: the same, evening out over the epochs;
    `temperature`: one task a step, drawn by a power of its size."""
    sampling_exponent: float = 0.5
    """`temperature`: exponent of a task's size; 1 draws by size, 0 all tasks alike."""
    sampling_cap: int = 0
    """`temperature`: examples beyond which a task counts no more; 0 for no limit."""
    batch_size: int = 16
    """Examples of each task in a batch."""
    epochs: float = 3.0
    """Length in epochs; one epoch sees as many examples as all tasks hold together."""
    steps: int | None = None
    """Length in optimizer steps, in place of `epochs`."""
    optimizer: tuple[str, ...] = ("pcgrad()", "clip_by_global_norm(1.0)", "adamw(lr, weight_decay=0.01, mask=kernels)")
    """The optax chain, as call strings. Known names: lr, kernels, encoder, heads, parts. Aggregators, which make
    one gradient of the tasks': aligned_mtl, cagrad, config, dualproj, dwa, equal_norms, fairgrad, famo, gls,
    gradnorm, gradvac, imtl_g, mean_tasks, mgda, nash_mtl, pcgrad, random_weights, smoothed, stch, sum_tasks,
    upgrad, uw."""
    lr: float = 1e-5
    """Peak learning rate: what `lr` means in the chain."""
    schedule: Schedule = "constant"
    """How `lr` decays after warm-up."""
    warmup_fraction: float = 0.0
    """Share of the stage's steps during which `lr` rises from 0."""
    freeze: tuple[str, ...] = ()
    """Parameter paths that do not train, such as `encoder` or `encoder/embeddings`."""
    cache_features: bool = False
    """With the encoder frozen: run it once over the data, without dropout, and train the heads on what it gave."""
    smart: SmartConfig = field(default_factory=SmartConfig)
    """Adversarial smoothness."""
    proximal: ProximalConfig = field(default_factory=ProximalConfig)
    """Bregman proximal point."""
    regularizers: tuple[str, ...] = ()
    """Further regularisers, as call strings: `rdrop(weight=1.0)`, `freelb(...)`; `--plugins` FILE can add others."""
    evaluate: Literal["student", "teacher"] = "student"
    """What dev scores, best checkpoint and predictions are of: the trained parameters, or their teacher."""
    stages: tuple[StageConfig, ...] = ()
    """Stages, one after the other; without any, the run is a single stage of the fields above."""

    seed: int = 0
    """Seed of everything random: heads, dropout, data order, surgery."""
    seeds: tuple[int, ...] = ()
    """Train a run of each of these seeds in one program, each with a folder of its own, in place of `seed`."""
    log_every_steps: int = 50
    """Steps between two records of training losses."""
    eval_every_steps: int = 0
    """Steps between two evaluations on dev; 0 evaluates after every epoch."""
    save_every_steps: int = 0
    """Steps between two checkpoints besides those of evaluations; 0 saves at evaluations only."""
    affinity_every_steps: int = 0
    """Steps between two looks at what a step on each task alone would do to the losses of all; 0 never looks."""
    eval_batch_size: int = 64
    """Examples in an evaluation batch."""
    max_bad_steps: int = 100
    """A task whose loss or gradient is not finite is left out; so many steps in a row stop the run, 0 never does."""
    writers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where records go besides metrics.jsonl: `tensorboard` (event files in the run folder), `wandb` (Weights & Biases,
    whose own environment variables name project and mode)."""
    checkpoint_metric: str = "average"
    """Dev score that the best checkpoint is chosen by: `average` (the paper's), `plain_average`, a task's name for its
    primary metric, or `<task>.<metric>`."""
    patience: int = 0
    """Stop after so many evaluations without a better score (`checkpoint_metric`); 0 never stops early."""
    out: str = ""
    """Run folder; `runs/<config name>` if left out."""

    def resolved_tasks(self) -> tuple[Task, ...]:
        """The tasks, each with a head and a token limit: its own, or else the run's."""
        filled = {"head": self.head, "max_length": self.max_length}
        return tuple(
            Task(**{**filled, **{name: value for name, value in vars(task).items() if value is not None}})
            for task in self.tasks
        )

    def resolved_stages(self) -> tuple[Stage, ...]:
        """The stages with every field filled in: the stage's own value, or else the run's."""
        resolved = []
        for number, stage in enumerate(self.stages or (StageConfig(name="train"),), start=1):
            own = {name: value for name, value in vars(stage).items() if value is not None}
            steps = (own if "steps" in own or "epochs" in own else vars(self)).get("steps")
            filled = {one.name: own.get(one.name, getattr(self, one.name, None)) for one in dataclasses.fields(Stage)}
            length = {"steps": steps, "epochs": 0.0} if steps is not None else {"steps": 0, "epochs": filled["epochs"]}
            names = tuple(task.name for task in self.tasks if stage.tasks is None or task.name in stage.tasks)
            resolved.append(Stage(**{**filled, **length, "tasks": names, "name": stage.name or f"stage{number}"}))
        return tuple(resolved)
