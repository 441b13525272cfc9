"""``hg_plugin prepare coco`` and the like: datasets from the exports of annotation tools."""

# what each command reads, in words
TOOLS = {
    'coco': """in the layout of COCO.

A JSON file whose categories name the keypoints, as CVAT, Roboflow and COCO Annotator write it.""",
    'cvat': """of CVAT, exported as "CVAT for images 1.1".

Each skeleton is a person. Points without a skeleton are named by their labels; those of one group, or in
one box, are a person.""",
    'labelme': """of labelme.

The label of a point is the name of a keypoint. Points and a rectangle with one group_id are a person; points
without one belong to the rectangle around them or, where there is none, to the only person of the image.""",
    'labelstudio': """of Label Studio, exported as JSON.

The label of a point is the name of a keypoint. It belongs to the rectangle that is its parent in the list of
regions, or around it. Give the uploaded files, or the folder of local storage, with --images.""",
    'yolo-pose': """of Ultralytics' pose networks.

The export is a folder with data.yaml (kpt_shape, and kpt_names and flip_idx where they are known), labels/
and images/.""",
}


def describe(kind: str) -> str:
    usage = f'hg_plugin prepare {kind} export data/mine --images photographs\nhg_plugin finetune data/mine'
    return f'Make a dataset to fine-tune on from annotations {TOOLS[kind]}\n\n{usage}\n'


def add_arguments(parser):
    add = parser.add_argument
    add('path', metavar='EXPORT', help='the export: its file, or its folder')
    add('out', metavar='OUT', help='folder to write annotations/ and metainfo.py to')
    add('--images', metavar='DIR', help='folder of the images (default: that of the export)')
    add('--val', type=float, default=0.2, metavar='SHARE', help='share of the images that validate')


def run(kind, args):
    from hg_plugin.prepare.exports import prepare_export

    done = prepare_export(kind, **vars(args))
    for reason, places in done.left_out.items():
        print(f'left out: {len(places):,} {reason}, such as {places[0]}')
    for split, count in done.persons.items():
        print(f'{split:>5}: {count:6,} persons in {done.images[split]:,} images')
    print(f'keypoints: {", ".join(f"{name} {count:,}" for name, count in done.keypoints.items())}')
    print(f'left and right: {", ".join(map(" and ".join, done.pairs)) or "none, by their names"}')
    print(f'Next: hg_plugin finetune {args.out}')
