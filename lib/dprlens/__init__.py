"""dprlens: is dense passage retrieval retrieving? The library behind the book, and its public face.

    from dprlens import Setup, cloze, attribute

A public name is imported when it is first used, so that the command line need not wait for torch.
"""

import importlib

_PUBLIC = {  # module: names
    "bert.cloze": "cloze recall",
    "bert.encoder": "DualEncoder Encoder EncoderSpec random_bert reinitialise",
    "bert.pretrained": "TowersSpec load_encoder load_towers",
    "bert.vocabulary": "make_tokenizer vocabulary",
    "consistency.probes": "PROBES ProbeSpec probed_part",
    "consistency.steps": "ProbingTask features fit_probe",
    "decentralization.active_neurons": "strongest",
    "decentralization.attribution": "AttributionSpec attribute choice",
    "decentralization.interventions": "scale_neurons",
    "editing.editors": "Finetuning FinetuningSpec Malmen MalmenSpec Mend MendSpec PatcherSpec TransformerPatcher",
    "profile": "get_profile",
    "retrieval.exact_search": "accuracy gold_places",
    "retrieval.index": "InMemory",
    "retrieval.negatives": "BM25 NegativesSpec",
    "setup": "Setup",
    "training.dpr": "DPRSpec train_dpr",
    "training.pretrain": "PretrainSpec pretrain",
    "world.closed": "ClosedSpec TextSpec make_world segments",
    "world.passages": "Passage",
    "world.records": "Fact Question Statement World",
}
_MODULE = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> object:
    """A public name, from its module. Raises AttributeError for any other."""
    if name not in _MODULE:
        raise AttributeError(f"module 'dprlens' has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(importlib.import_module(f"dprlens.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *globals()]
