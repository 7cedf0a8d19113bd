"""Uncased WordPiece tokenizers with BERT's normaliser and templates, from a list of tokens."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def special_tokens():
    """The first tokens of every vocabulary; padding is number 0."""
    return list(SPECIAL)


def write_tokenizer(vocabulary, path):
    """Writes `tokenizer.json`; token i of the list gets number i."""
    numbers = {token: number for number, token in enumerate(vocabulary)}
    if len(numbers) != len(vocabulary):
        raise ValueError("the vocabulary holds a token twice")
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, numbers[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(path))
