"""Train a model with MMEngine's stock runner. The options are MMPose's."""

from .arguments import add_config, add_runner_options, runner_options


def add_arguments(parser):
    add_config(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const=True,
        default=False,
        metavar='CHECKPOINT',
        help='continue from this checkpoint (default: the latest in the work directory)',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--no-validate', dest='validate', action='store_false', help='do not validate during the training'
    )
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by batch size')
    add_runner_options(parser)


def run(args):
    from hg_plugin.training.runner import train

    train(**runner_options(args))
