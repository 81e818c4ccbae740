"""Unpacks a wheel into a folder, or checks a file's SHA-256 digest; standard library only.

    unpack.py wheel WHEEL FOLDER
    unpack.py digest FILE HEX
"""

import hashlib
import sys
import zipfile


def main() -> None:
    task, path, argument = sys.argv[1:]
    if task == "wheel":
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(argument)
    elif task == "digest":
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != argument:
            sys.exit(f"{path} has the SHA-256 digest {digest.hexdigest()}, not {argument}")
    else:
        sys.exit(__doc__)


main()
