"""``python -m hg_plugin`` is ``hg_plugin``."""

from hg_plugin_cli import main

if __name__ == '__main__':
    main()
