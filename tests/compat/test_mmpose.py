import subprocess
import sys

import numpy as np
import pytest

import hg_plugin.compat.mmpose as compat_mmpose
from hg_plugin.compat.mmpose import stood_in


@pytest.fixture
def python(launch, tmp_path):
    """Runs code in a Python that finds these modules before others; returns what it printed."""

    def python(code, modules=(), end=0):
        for name, program in dict(modules).items():
            (tmp_path / f'{name}.py').parent.mkdir(exist_ok=True)
            (tmp_path / f'{name}.py').write_text(program)
        command = sys.executable, '-c', code
        done = launch(*command, stderr=subprocess.PIPE, code=end, PYTHONPATH=str(tmp_path))
        return done.stdout + done.stderr

    return python


def test_import_gives_mmpose_without_a_word_and_leaves_no_stand_in_behind(python):
    out = python("""
import sys, hg_plugin
import mmpose.models, mmpose.visualization, mmpose.apis
from hg_plugin.compat.mmpose import stood_in
for module in stood_in:
    package = module.split('.')[0]
    assert module not in sys.modules and (package == 'mmcv' or package not in sys.modules), module
if 'mmdet.utils' in stood_in:
    assert not mmpose.apis.inferencers.base_mmpose_inferencer.has_mmdet
""")
    assert out == ''


def test_a_working_package_is_not_hidden(python):
    transforms = 'class ToPILImage:\n    real = True\n'
    out = python(
        'import hg_plugin, torchvision, mmpose.visualization.simcc_vis as m;'
        'from hg_plugin.compat.mmpose import stood_in;'
        'print(m.ToPILImage.real, torchvision.__version__, "torchvision.transforms" in stood_in)',
        {'torchvision/__init__': "__version__ = '9.9'", 'torchvision/transforms': transforms},
    )
    assert out.split() == ['True', '9.9', 'False']


@pytest.mark.parametrize(
    'program, reason',
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", 'RuntimeError: operator'),
        # the folder that an uninstallation left
        (None, "ModuleNotFoundError: No module named 'torchvision.transforms'"),
    ],
)
def test_a_broken_package_is_stood_in_for_and_leaves_no_halves(python, program, reason):
    if not program and 'torchvision.transforms' not in stood_in:
        pytest.skip('torchvision is installed, and comes before an empty folder')
    modules = {'torchvision/part': ''}
    if program:
        modules['torchvision/__init__'] = f'from . import part\n{program}'
    out = python(
        'import sys, hg_plugin; print(hg_plugin.compat.mmpose.stood_in["torchvision.transforms"]);'
        'print([m for m in sys.modules if m.startswith("torchvision.")]);'
        # as every runner does
        'from mmengine.utils.dl_utils import collect_env; print("TorchVision" in collect_env())',
        modules,
    )
    assert out.startswith(reason) and out.splitlines()[1:3] == ['[]', 'False']


@pytest.mark.skipif('torchvision.transforms' not in stood_in, reason='torchvision is installed')
def test_a_stand_in_that_is_used_names_the_package():
    from mmpose.visualization import simcc_vis

    with pytest.raises(ImportError, match='install torchvision'):
        simcc_vis.ToPILImage()


@pytest.mark.parametrize('radius', [3, 3.0, np.array([3])])
def test_circles_of_any_kind_of_radius_are_drawn(radius):
    from mmpose.visualization.opencv_backend_visualizer import OpencvBackendVisualizer

    visualizer = OpencvBackendVisualizer(backend='opencv')
    visualizer.set_image(np.zeros((20, 20, 3), np.uint8))
    visualizer.draw_circles(np.array([10, 10]), radius=radius, face_colors=(255, 255, 255))
    drawn = visualizer.get_image()
    assert drawn[10, 13].any() and not drawn[10, 15].any()


def test_missing_packages_are_named_with_one_command(monkeypatch):
    monkeypatch.setattr(compat_mmpose, 'REQUIRED', dict(gone1='gone-1', gone2='gone-2'))
    monkeypatch.setattr(compat_mmpose, 'WITHOUT_DEPENDENCIES', dict(gone3='mmpose'))
    with pytest.raises(ImportError, match='pip install gone-1 gone-2 && .*--no-deps mmpose\n'):
        compat_mmpose.check_requirements()


@pytest.mark.parametrize(
    'error', ["ValueError('numpy.dtype size')", "ModuleNotFoundError(name='xtcocotools')"]
)
def test_pycocotools_stands_in_for_an_xtcocotools_that_is_broken_or_missing(python, error):
    """xtcocotools is compiled for NumPy 1, and does not load with NumPy 2."""
    out = python(
        'import sys, hg_plugin, mmpose.datasets.datasets.base.base_coco_style_dataset as m;'
        'from hg_plugin.compat.mmpose import stood_in;'
        'print(m.COCO.__module__, sys.modules.get("xtcocotools"), stood_in["xtcocotools"])',
        dict(xtcocotools=f'raise {error}'),
    )
    assert out.startswith(f'hg_plugin.compat.xtcocotools None {error.partition("(")[0]}')


@pytest.mark.parametrize(
    'modules, named',
    [
        # MMPose imports albumentations where it is installed
        (dict(albumentations='import broken', broken="raise KeyError('numpy.uint32')"), 'broken'),
        (dict(munkres='import gone'), 'gone'),
        pytest.param(
            dict(albumentations='import numpy; numpy.gone'), 'albumentations', marks=pytest.mark.slow
        ),
        pytest.param(dict(mmengine='raise SyntaxError'), 'mmengine', marks=pytest.mark.slow),
    ],
)
def test_the_package_that_is_broken_is_named_with_what_is_installed(python, modules, named):
    *_, message, installed = python('import hg_plugin', modules, 1).splitlines()
    assert f'because {named} is missing or broken' in message
    assert f'numpy {np.__version__}' in installed and 'mmpose 1.' in installed
