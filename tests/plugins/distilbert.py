"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108), numerically that of Hugging Face's `DistilBertModel`."""

from dataclasses import dataclass

import mtbert_jax as mt


@dataclass(frozen=True)
class DistilBertConfig(mt.BertConfig):
    num_hidden_layers: int = 6
    type_vocab_size: int = 0


class DistilBertEncoder(mt.BertEncoder):
    has_pooler = False


@mt.register_family("distilbert")
class DistilBertFamily(mt.BertFamily):
    title = "DistilBERT"
    architecture = "DistilBertModel"
    prefix = "distilbert."
    config = DistilBertConfig
    encoder = DistilBertEncoder
    config_names = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
    tensors = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/layer_norm": "embeddings.LayerNorm",
        "layer_{}/attention/query": "transformer.layer.{}.attention.q_lin",
        "layer_{}/attention/key": "transformer.layer.{}.attention.k_lin",
        "layer_{}/attention/value": "transformer.layer.{}.attention.v_lin",
        "layer_{}/attention/output": "transformer.layer.{}.attention.out_lin",
        "layer_{}/attention_norm": "transformer.layer.{}.sa_layer_norm",
        "layer_{}/intermediate": "transformer.layer.{}.ffn.lin1",
        "layer_{}/output": "transformer.layer.{}.ffn.lin2",
        "layer_{}/output_norm": "transformer.layer.{}.output_layer_norm",
    }
