"""Print versions, slim or full set-up, replaced modules and devices: what a bug report needs."""


def run(args):
    try:
        from hg_plugin import __version__
        from hg_plugin.utils.environment import describe
    except ImportError as error:  # which names the package, and all versions
        print(f'hg_plugin cannot be imported: {error}')
        return
    for heading, text in {'hg_plugin': __version__, **describe()}.items():
        print(f'{heading:36} {text}')
