"""What a stage does to documents, in this process: no passes, no command."""

from research.curation.documents import Document, Dropped
from research.curation.engine import Engine
from research.curation.shards import Place, Shards


def after(stage, folder, *parts: list[Document], engine=None) -> list[list[Document | Dropped]]:
    """What becomes of the documents of each part."""
    shards = Shards(folder / "shards")
    shards.folder.mkdir()
    for number, documents in enumerate(parts):
        shards.write(number, documents)
    stage.compare(engine or Engine(1, []), shards.folder, len(parts), folder / "stage")
    effects = [stage.effect(shards.folder, folder / "stage", number) for number in range(len(parts))]
    return [[effects[n](Place(n, i), document) for i, document in enumerate(documents)] for n, documents in enumerate(parts)]


def texts(*texts: str, name="d") -> list[Document]:
    return [{"key": f"{name}:{i}", "text": text} for i, text in enumerate(texts)]
