"""Evaluate saved predictions on MPII: PCKh as in the stacked hourglass paper."""


def add_arguments(parser):
    add = parser.add_argument
    add('pred', nargs='+', metavar='PRED', help='.mat, .npz or .h5 with preds, (N, K, 2) in 1-based pixels')
    add('--gt', required=True, metavar='MAT', help='mpii_gt_val.mat')
    weights = ['annotations', 'equal']
    add('--weights', choices=weights, default=weights[0], help='weights of the joints in Mean')
    add(
        '--metainfo', metavar='FILE.py', help="names of joints other than MPII's 16, as MMPose describes them"
    )
    add('--plot', metavar='FILE.png', help='plot PCKh over the threshold')


def run(args):
    from mmpose.datasets.datasets.utils import parse_pose_metainfo

    from hg_plugin.evaluation import (
        joint_groups,
        load_ground_truth,
        load_predictions,
        pckh_curves,
        pckh_metrics,
        pckh_table,
        plot_pckh,
    )
    from hg_plugin.evaluation.plot import check_plot_file
    from hg_plugin.mpii_format import NUM_JOINTS
    from hg_plugin.utils.errors import InputError

    if args.plot:
        check_plot_file(args.plot)
    truth = load_ground_truth(args.gt)
    meta = parse_pose_metainfo(dict(from_file=args.metainfo)) if args.metainfo else {}
    persons, joints = truth['gt'].shape[:2]
    if joints != meta.get('num_keypoints', NUM_JOINTS):
        raise InputError(f'{args.gt} has {joints} joints; name them with --metainfo.')
    options = dict(weights=args.weights, groups=joint_groups(meta))
    curves = {
        path: pckh_curves(load_predictions(path, persons, joints), **truth, **options) for path in args.pred
    }
    print(pckh_table({path: pckh_metrics(own) for path, own in curves.items()}, weights=args.weights))
    if args.plot:
        plot_pckh(curves, args.plot, weights=args.weights)
