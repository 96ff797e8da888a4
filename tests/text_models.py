"""Small random encoders with tokenizers of their own, word vectors, and texts of three classes."""

from __future__ import annotations

import csv
import json
import random
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
from many_scripts import SENTENCES

from headstart.export.networks.torch.stack import import_torch

WIDTH, LAYERS, LONGEST = 32, 2, 40
TOPICS = {
    "cooking": "boil the soup with onion garlic butter and salt in a pan until the rice is soft",
    "sailing": "the wind fills our sail while the anchor rope and rudder hold the boat at sea",
    "banking": "interest on the loan rises when the bank credits money to an account at a branch",
}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def topical(topic: str, number: int) -> str:
    """One of the texts of a topic."""
    words = TOPICS[topic].split()
    chance = random.Random(f"{topic}{number}")  # noqa: S311
    return " ".join(chance.choices(words, k=chance.randint(4, 8)))


def write_table(path: Path, each: int = 24) -> Path:
    """A CSV: `text`, `label`, `group` (two rows are one), `source`."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "group", "source"])
        for topic in TOPICS:
            for number in range(each):
                row = [topical(topic, number), topic, f"{topic}{number // 2}", f"no. {number}"]
                writer.writerow(row)
    return path


def wordpiece() -> Any:
    """A tokenizer like BERT's, trained on texts in many scripts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    trainer = trainers.WordPieceTrainer(
        vocab_size=1200, special_tokens=[*SPECIAL], show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, *TOPICS.values()] * 3, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer.enable_truncation(7)  # as some folders have it; headstart has a length of its own
    tokenizer.enable_padding(length=7)
    return tokenizer


def byte_pairs() -> Any:
    """A tokenizer like RoBERTa's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=[*ROBERTA],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *TOPICS.values()], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))  # type: ignore[assignment]
    return tokenizer


def unigram(charsmap: str | None = None) -> Any:
    """A tokenizer like XLM-RoBERTa's, with a small table of replacements.

    `golden/charsmap.txt` was written by SentencePiece: ligatures, wide letters, accents as letters
    of their own, jamo, white space and control characters.
    """
    from tokenizers import (
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    table = charsmap or (Path(__file__).parent / "golden" / "charsmap.txt").read_text()
    rules = [normalizers.Precompiled(b64decode(table)), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(rules)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    trainer = trainers.UnigramTrainer(
        vocab_size=900,
        special_tokens=[*ROBERTA],
        unk_token="<unk>",  # noqa: S106
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *TOPICS.values()] * 3, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return tokenizer


def write_encoder(folder: Path, kind: str = "bert", **pooling: bool) -> Path:
    """A folder as sentence-transformers writes it: `bert`, `distilbert`, `roberta`, `mpnet`,
    `xlm-roberta`.

    Parameters
    ----------
    pooling
        Modes of `1_Pooling/config.json`; the mean, of length 1, if none are given.
    """
    torch, transformers = import_torch("transformers")
    torch.manual_seed(0)
    tokenizer = {"roberta": byte_pairs, "xlm-roberta": unigram}.get(kind, wordpiece)()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {"vocab_size": tokenizer.get_vocab_size() + 3, "max_position_embeddings": LONGEST}
    if kind == "distilbert":
        own = {"dim": WIDTH, "hidden_dim": 64, "n_layers": LAYERS, "n_heads": 2}
    else:
        own = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS}
        own |= {"num_attention_heads": 2}
    if kind in ("roberta", "mpnet", "xlm-roberta"):
        own["pad_token_id"] = 1
    config = transformers.AutoConfig.for_model(kind, **sizes, **own)
    module = transformers.AutoModel.from_config(config)
    with torch.no_grad():  # trained networks tell tokens apart more than freshly made ones do
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter *= 4
    module.save_pretrained(folder)
    if pooling:
        modules = ["Transformer", "Pooling"]
    else:
        modules, pooling = ["Transformer", "Pooling", "Normalize"], {"mean_tokens": True}
    types = [
        {"path": "" if name == "Transformer" else f"{number}_{name}", "type": f"st.models.{name}"}
        for number, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(types))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": on for name, on in pooling.items()}
    about = {"word_embedding_dimension": WIDTH, "include_prompt": True} | modes
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(about))
    if kind == "bert":
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    return folder


def vectors(dim: int = 8) -> dict[str, np.ndarray]:
    """Vectors of most words of the topics: each topic has a direction of its own."""
    chance = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for number, text in enumerate(TOPICS.values()):
        for word in text.split():
            vector = chance.normal(size=dim) / 4
            vector[number] += 2
            found.setdefault(word, vector.astype(np.float32))
    del found["the"]
    return found


def write_words(path: Path, header: bool = False, binary: bool = False) -> Path:
    """Word vectors: GloVe's text, or with a header Word2Vec's text or binary."""
    known = vectors()
    with open(path, "wb") as file:
        if header:
            file.write(f"{len(known)} 8\n".encode())
        for word, vector in known.items():
            if binary:
                file.write(word.encode() + b" " + vector.tobytes() + b"\n")
            else:
                file.write(" ".join([word, *map(repr, map(float, vector))]).encode() + b"\n")
    return path
