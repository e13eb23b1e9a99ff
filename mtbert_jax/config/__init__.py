"""What a run is: dataclasses that are the schema, and the reader of the TOML files that hold them."""

from mtbert_jax.config.fields import (
    Config,
    HeadConfig,
    LoraConfig,
    Order,
    ParallelConfig,
    Pooling,
    ProximalConfig,
    Schedule,
    SmartConfig,
    Stage,
    StageConfig,
    Task,
    TaskConfig,
)
from mtbert_jax.config.read import load_config, save_config

__all__ = [
    "Config",
    "HeadConfig",
    "LoraConfig",
    "Order",
    "ParallelConfig",
    "Pooling",
    "ProximalConfig",
    "Schedule",
    "SmartConfig",
    "Stage",
    "StageConfig",
    "Task",
    "TaskConfig",
    "load_config",
    "save_config",
]
