# SPDX-License-Identifier: Apache-2.0
"""A byte-level tokenizer: one token a byte, so any text works and lengths are plain."""

import json
from pathlib import Path

BYTES = 256
BOS, EOS, PAD = 256, 257, 258
SPECIAL = {BOS: "<s>", EOS: "</s>", PAD: "<pad>"}

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_tokenizer(folder: Path, vocab: int, max_tokens: int) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` for a model of ``vocab`` token ids.

    Ids above the special tokens exist only to round the vocabulary up; they get names, because a
    random model emits them and every emitted id must have a text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    assert len(alphabet) == BYTES
    tokens = {character: i for i, character in enumerate(alphabet)}
    tokens |= {text: i for i, text in SPECIAL.items()}
    tokens |= {f"<{i}>": i for i in range(len(tokens), vocab)}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL.values()])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": SPECIAL[BOS],
                "eos_token": SPECIAL[EOS],
                "pad_token": SPECIAL[PAD],
                "model_max_length": max_tokens,
                "clean_up_tokenization_spaces": False,
                "chat_template": CHAT_TEMPLATE,
            },
            indent=2,
        )
        + "\n"
    )
