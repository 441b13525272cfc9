"""What MMEngine writes is whole or not there, and logs that do not fit on the disk end no training."""

import logging
import sys
from functools import wraps

from mmengine.fileio import LocalBackend
from mmengine.logging import print_log
from mmengine.visualization import LocalVisBackend

from .files import FULL, atomic_write


def write_whole_files() -> None:
    """Lets MMEngine write checkpoints, dumps and drawn images through :func:`.files.atomic_write`."""

    def put(self, obj, filepath) -> None:
        with atomic_write(filepath) as file:
            file.write(obj)

    def put_text(self, obj: str, filepath, encoding: str = 'utf-8') -> None:
        put(self, obj.encode(encoding), filepath)

    LocalBackend.put, LocalBackend.put_text = put, put_text
    dump = LocalVisBackend._dump

    @wraps(dump)
    def dump_or_tell(self, value_dict, file_path, file_format) -> None:
        try:
            dump(self, value_dict, file_path, file_format)
        except OSError as error:
            if not getattr(self, 'told', False):
                print_log(
                    f'{file_path} is not complete: {error.strerror}. The training goes on.',
                    'current',
                    logging.WARNING,
                )
            self.told = True

    LocalVisBackend._dump = dump_or_tell
    handle_error = logging.FileHandler.handleError

    def pass_over_full_disk(self, record) -> None:
        # a traceback for every line otherwise; stdout has the lines
        if getattr(sys.exc_info()[1], 'errno', None) not in FULL:
            handle_error(self, record)

    logging.FileHandler.handleError = pass_over_full_disk
