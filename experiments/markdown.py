"""Tables in Markdown, and the places in documents that hold them: what every `table.py` here shares.

A pair of markers `<!-- name:start -->`, `<!-- name:end -->` encloses what is made from records.
"""


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def fill(path, blocks):
    """Writes each block between its markers; one that is None, or has no markers there, is left as it is."""
    text = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if block and start in text:
            before, rest = text.split(start, 1)
            text = before + start + "\n" + block + "\n" + end + rest.split(end, 1)[1]
    path.write_text(text, encoding="utf-8")
