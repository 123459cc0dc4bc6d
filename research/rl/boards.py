"""Boards and moves in words: what a player at a terminal sees and types, and the record of a game of Go."""

import numpy as np

from research.core.errors import UserError
from research.rl.games import Game

SHOWN = (
    "tic_tac_toe",
    "connect_four",
    "othello",
    "hex",
    "go_9x9",
    "go_19x19",
)  # whose first two planes are the stones of who is to move, and of the other
BESIDE = {"othello": "pass", "go_9x9": "pass", "go_19x19": "pass", "hex": "swap"}  # the move that is no cell
STONES = ("●", "○")  # of who began, of the other


def letters(game: Game) -> str:
    return "abcdefghjklmnopqrst" if game.name.startswith("go") else "abcdefghijklmnopqrst"  # Go leaves out the i


def move_name(game: Game, action: int) -> str:
    """A column by its number; a cell by a letter, of its column, and the number of its row, which in Go count from below; or pass, or swap."""
    H, W, _ = game.shape
    if game.name not in SHOWN:
        return str(action)
    if game.actions == W:
        return str(action + 1)
    if action == H * W:
        return BESIDE[game.name]
    row, column = divmod(action, W)
    return f"{letters(game)[column]}{H - row if game.name.startswith('go') else row + 1}"


def read_move(game: Game, text: str, legal_A) -> int:
    """The move of that name. Raises UserError where there is none, or it is not allowed."""
    allowed = {move_name(game, int(action)): int(action) for action in np.flatnonzero(legal_A)}
    wanted = text.strip().lower()
    if wanted not in allowed:
        some = list(allowed)
        raise UserError(f"{text.strip()!r} is no move here: {', '.join(some[:12])}{', ...' if len(some) > 12 else ''}.")
    return allowed[wanted]


def picture(game: Game, state, last: int | None = None) -> str:
    """The board of one game as lines of text, the cell of the last move in brackets; of a game whose board is not shown, nothing."""
    if game.name not in SHOWN:
        return ""
    board = np.asarray(state.observation)
    H, W, _ = board.shape
    mine = int(state._step_count) % 2
    numbers, last_cell = game.actions == W, None
    if last is not None and not numbers and last < H * W:
        last_cell = divmod(last, W)
    lines = []
    for row in range(H):
        cells = [STONES[mine] if board[row, column, 0] else STONES[1 - mine] if board[row, column, 1] else "·" for column in range(W)]
        marked = ["[" + cell + "]" if (row, column) == last_cell else f" {cell} " for column, cell in enumerate(cells)]
        label = "" if numbers else f"{H - row if game.name.startswith('go') else row + 1:2}"
        lines.append(" " * (row if game.name == "hex" else 0) + label.rjust(2) + " " + "".join(marked))
    names = [str(column + 1) if numbers else letters(game)[column] for column in range(W)]
    return "\n".join([*lines, " " * (H if game.name == "hex" else 0) + "   " + "".join(f"{name:^3}" for name in names)])


def sgf(game: Game, actions: list[int], komi: float, names: tuple[str, str], result: str) -> str:
    """A game of Go in the Smart Game Format, FF[4]: https://www.red-bean.com/sgf."""
    size = game.shape[0]
    head = f"(;GM[1]FF[4]CA[UTF-8]AP[Lodestar]SZ[{size}]KM[{komi:g}]RU[Chinese]PB[{names[0]}]PW[{names[1]}]RE[{result}]"
    place = lambda action: "" if action == size**2 else "".join("abcdefghijklmnopqrs"[i] for i in reversed(divmod(action, size)))
    return head + "".join(f";{'BW'[i % 2]}[{place(action)}]" for i, action in enumerate(actions)) + ")\n"
