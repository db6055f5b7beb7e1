"""Download a file over HTTPS with Python's own library, which checks the server's certificate."""

import urllib.error
import urllib.request

from fsspec.callbacks import Callback

SCHEMES = ("https://", "http://")
BLOCK_BYTES = 2**20
TIMEOUT_SECONDS = 60  # The longest time in which nothing arrives.
MISSING, FORBIDDEN = (404, 410), (401, 403)


def download(url: str, local: str, progress: Callback) -> None:
    """Write the file at `url` to a local path, and tell `progress` of each block.

    Raises:
      FileNotFoundError: there is no such file.
      PermissionError: the server refuses to give it, or leads from HTTPS to a connection that anybody could change.
      OSError: the connection fails or ends too soon.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "mixer_jax"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, open(local, "wb") as file:
            if url.startswith("https://") and not response.url.startswith("https://"):
                raise PermissionError(f"the server leads to {response.url}, which is not HTTPS")
            length = response.length
            progress.set_size(length)
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                progress.relative_update(len(block))
            if length is not None and file.tell() != length:
                raise ConnectionError(f"the connection ended after {file.tell()} of {length} bytes")
    except urllib.error.HTTPError as error:
        kinds: dict[int, type[OSError]] = dict.fromkeys(MISSING, FileNotFoundError) | dict.fromkeys(FORBIDDEN, PermissionError)
        raise kinds.get(error.code, ConnectionError)(str(error)) from error
