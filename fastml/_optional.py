"""Optional dependencies: imported where they are used, and named together with the extra that installs them."""

import importlib


def require(module, *, extra, feature):
    """Import ``module``, or say which extra of fastml brings it.

    Parameters
    ----------
    module : str
        Name of the module to import, possibly dotted.
    extra : str
        The extra in ``pip install "fastml[extra]"``.
    feature : str
        What the user asked for that needs it.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If the module cannot be imported.

    Examples
    --------
    >>> from fastml._optional import require
    >>> require("math", extra="display", feature="The example").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f'{feature} needs {package}: pip install "fastml[{extra}]" ({error})') from error
