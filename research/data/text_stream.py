"""Text from tokens, as they come."""

import tokenizers


class TextStream:
    """The text that goes on from a prompt, token by token: given out as soon as it is certain, so that the pieces join to `text`.

    Held back are a character of which bytes are still to come, and what may be the beginning of a stop string. A stop string ends the text just
    before it; of several the one that is complete first counts, wherever tokens begin and end.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, prompt: list[int], stops: list[str]):
        self._tokenizer, self._stops = tokenizer, stops
        self._ids, self._begin, self._read = list(prompt), 0, len(prompt)  # before `read` all is given out; decoded is from `begin`
        self._held = ""
        self.text, self.tokens, self.stopped = "", 0, False

    def push(self, token: int) -> str:
        """The piece of text that one more token makes certain."""
        self._ids.append(token)
        self.tokens += 1
        new = self._new()
        if not new or new.endswith("\ufffd"):  # so the bytes of an unfinished character are decoded
            return ""
        self._begin, self._read = self._read, len(self._ids)
        return self._give(new)

    def close(self) -> str:
        """The piece held back, when no token comes any more."""
        piece = self._give(self._new())
        if not self.stopped:
            self.text, piece, self._held = self.text + self._held, piece + self._held, ""
        return piece

    def _new(self) -> str:
        decode = lambda end: self._tokenizer.decode(self._ids[self._begin : end])
        return decode(None)[len(decode(self._read)) :]

    def _give(self, new: str) -> str:
        pending = self._held + new
        found = [(at + len(stop), at) for stop in self._stops if (at := pending.find(stop)) >= 0]
        if found:
            piece, self._held, self.stopped = pending[: min(found)[1]], "", True
        else:
            held = max((n for stop in self._stops for n in range(1, len(stop)) if pending.endswith(stop[:n])), default=0)
            piece, self._held = pending[: len(pending) - held], pending[len(pending) - held :]
        self.text += piece
        return piece
