"""Which of an operator's input channels move its mesh."""

import re
from collections.abc import Sequence

from sciml.errors import ConfigError, did_you_mean

EARLIER = re.compile(r"_before\d+$")
"""Ends the names of channels of earlier frames."""


def moving_channels(
    owner: str, moved_by: Sequence[str | int] | None, names: Sequence[str] | None, count: int
) -> list[int]:
    """Numbers of the channels that the monitor sees.

    Args:
        owner: name of the operator, for messages.
        moved_by: names or numbers of channels; None: all of the newest frame.
        names: of all channels; None: not known, and then all move the mesh unless numbers are given.
        count: of all channels.

    Raises:
        ConfigError: no such channel, a name where none are known, or no channel at all.
    """
    if names is not None and len(names) != count:
        raise ConfigError(f"{owner}: {len(names)} channel_names for {count} input channels; give one a channel")
    if moved_by is None:
        newest = [i for i in range(count) if names is None or not EARLIER.search(names[i])]
        return newest or list(range(count))
    found = []
    for channel in moved_by:
        if isinstance(channel, str):
            if names is None:
                raise ConfigError(
                    f"{owner}: moved_by has the name {channel!r}, and the names of the input channels are not known; "
                    "give channel_names too, or numbers"
                )
            if channel not in names:
                raise ConfigError(f"{owner}: moved_by has no channel {channel!r}{did_you_mean(channel, names)}")
            channel = list(names).index(channel)
        if isinstance(channel, bool) or not isinstance(channel, int) or not 0 <= channel < count:
            raise ConfigError(f"{owner}: moved_by has {channel!r}; expected names, or numbers from 0 to {count - 1}")
        found.append(channel)
    if not found:
        raise ConfigError(f"{owner}: moved_by is empty; name a channel, or use mover='none' for a mesh that stays")
    return found
