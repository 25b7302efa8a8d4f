"""Where a model keeps its parts."""

import pytest
import torch
from toy_bert import D_FF, D_MODEL, LAYERS, toy
from transformers import DistilBertConfig, DistilBertModel

from dprlens.bert.architecture import blocks, embeddings, encoder_of, head, name_of


@pytest.mark.parametrize("has_head", [False, True])
def test_parts_are_those_of_bert(has_head):
    model = toy(head=has_head)
    bert = model.bert if has_head else model
    assert encoder_of(model) is bert
    assert head(model) is (model.cls if has_head else None)
    assert embeddings(model) is bert.embeddings
    assert [block.module for block in blocks(model)] == [*bert.encoder.layer]
    block, layer = blocks(model)[1], bert.encoder.layer[1]
    assert block.intermediate is layer.intermediate.dense
    assert block.output is layer.output.dense
    assert block.attention_output is layer.attention.output.dense


def test_a_weight_has_the_name_that_the_model_gives_it():
    model = toy(head=True)
    assert name_of(blocks(model)[2].output.bias, model) == "bert.encoder.layer.2.output.dense.bias"
    assert name_of(blocks(model)[2].output.bias, encoder_of(model)) == "encoder.layer.2.output.dense.bias"


def test_a_wider_feed_forward_has_more_neurons_in_one_block_only():
    model = toy()
    blocks(model)[-1].widen(3)
    assert [tuple(block.intermediate.weight.shape) for block in blocks(model)][-2:] == [
        (D_FF, D_MODEL),
        (D_FF + 3, D_MODEL),
    ]
    assert blocks(model.double())[-1].output.weight.shape == (D_MODEL, D_FF + 3)
    assert model(torch.tensor([[2, 7, 3]])).last_hidden_state.shape == (1, 3, D_MODEL)
    assert len(blocks(model)) == LAYERS


def test_another_kind_of_model_is_refused(refused):
    other = DistilBertModel(DistilBertConfig(vocab_size=10, dim=8, n_heads=2, n_layers=1, hidden_dim=8))
    for ask in (blocks, head, embeddings):
        with refused("DistilBertModel", "BertPreTrainedModel"):
            ask(other)
