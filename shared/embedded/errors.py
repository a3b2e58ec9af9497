"""What can keep a local server from starting, each in a sentence that a person can act on."""


class LocalStackError(Exception):
    """The local stack cannot start; the text says why and what to do, and is all that a person needs to see."""


class FolderInUseError(LocalStackError):
    """Another stack runs on the same data folder."""


class NewerDataError(LocalStackError):
    """The data folder was written by a newer version of Recourse, or by a newer PostgreSQL."""


class PortBusyError(LocalStackError):
    """Somebody else listens on the port."""


class ServerStartError(LocalStackError):
    """The server started and failed, or could not be started at all."""
