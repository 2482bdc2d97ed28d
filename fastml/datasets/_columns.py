"""Which column of a table is the user, the item, the value and the timestamp, and whether its first line names them."""

from numbers import Integral

_USUAL_NAMES = {
    "user": {"user", "userid", "uid", "visitorid", "customerid"},
    "item": {"item", "itemid", "iid", "movie", "movieid", "product", "productid", "artistid", "trackid"},
    "value": {"value", "rating", "score", "weight", "count", "plays", "playcount"},
    "timestamp": {"timestamp", "time", "date", "datetime", "unixtime"},
}


def _usual_role(name):
    """What a column of this name usually holds, or None."""
    plain = name.strip().lower().replace("_", "").replace(" ", "")
    return next((role for role, names in _USUAL_NAMES.items() if plain in names), None)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def looks_like_header(first, second):
    """Whether the fields ``first`` name columns; ``second`` are those of the next line, or empty.

    Never where a field is a number. Otherwise where one is a usual name of the user, or where the next line has numbers
    where interactions have them: in both ids, or behind them.
    """
    if any(map(_is_number, first)):
        return False
    if "user" in map(_usual_role, first):
        return True
    numbers = [_is_number(field) for field in second]
    return any(numbers[2:]) or (len(numbers) > 1 and all(numbers[:2]))


def check_chosen(chosen):
    """Raise TypeError for a column that is neither a name nor a position; ``chosen`` is role -> what was given."""
    for role, column in chosen.items():
        off = role == "value" and column is False
        if not off and (isinstance(column, bool) or not isinstance(column, str | Integral | None)):
            none = ", None or False" if role == "value" else " or None"
            raise TypeError(f"{role} must be the name of a column, its position{none}, got {column!r}.")


def _position(role, column, n_columns, names):
    """Position of the column that the user chose by name or position."""
    if isinstance(column, str):
        if names is None:
            raise ValueError(f"{role}={column!r} is a name, but without a header there are none: give a position.")
        if names.count(column) != 1:
            raise ValueError(f"{role}={column!r} must be one column of the header, which has {names}.")
        return names.index(column)
    if not 0 <= column < n_columns:
        raise ValueError(f"{role}={column!r} must be a position in 0..{n_columns - 1}: there are {n_columns} columns.")
    return int(column)


def find_columns(chosen, n_columns, names):
    """Position of each role's column, or None.

    Parameters
    ----------
    chosen : dict
        For "user", "item", "value" and "timestamp" a name, a position, or None. None means, except for the timestamp,
        the column with a usual name, else the next that is free. False means none.
    n_columns : int
        Number of columns.
    names : list of str or None
        Names of the columns, where the table has them.

    Returns
    -------
    dict
        Position or None for each role.
    """
    given = {role: column for role, column in chosen.items() if column is not None and column is not False}
    found = {role: _position(role, column, n_columns, names) for role, column in given.items()}
    if len(set(found.values())) < len(found):
        raise ValueError(f"{', '.join(given)} must be different columns, got {found}.")
    roles = [None if names is None else _usual_role(name) for name in names or [""] * n_columns]
    for role in ("user", "item", "value"):
        if chosen[role] is None:
            free = [c for c in range(n_columns) if c not in found.values()]
            named = [c for c in free if roles[c] == role]
            found[role] = next(iter(named or [c for c in free if roles[c] is None]), None)
    for role in ("user", "item"):
        if found[role] is None:
            among = f"{n_columns} columns" if names is None else f"the columns {names}"
            raise ValueError(f"there is none for the {role} among {among}: choose it by {role}=, or another delimiter.")
    return {role: found.get(role) for role in chosen}
