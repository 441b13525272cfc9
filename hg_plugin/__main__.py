"""``python -m hg_plugin`` prints what a bug report needs."""
from .environment import describe

if __name__ == '__main__':
    for heading, text in describe().items():
        print(f'{heading:36} {text}')
