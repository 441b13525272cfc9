"""Train a model with MMEngine's stock runner. The options are MMPose's."""

from .arguments import add_config, add_runner_options, runner_options


def add_arguments(parser):
    add = parser.add_argument
    add_config(parser)
    resume = 'continue from this checkpoint (default: the latest in the work directory)'
    add('--resume', nargs='?', const=True, default=False, metavar='CHECKPOINT', help=resume)
    add('--amp', action='store_true', help='automatic mixed precision')
    add('--no-validate', dest='validate', action='store_false', help='do not validate during the training')
    add('--auto-scale-lr', action='store_true', help='scale the learning rate by batch size')
    add_runner_options(parser)


def run(args):
    from hg_plugin.training.runner import train

    train(**runner_options(args))
