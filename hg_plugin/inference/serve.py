"""A page on this machine that finds the keypoints of persons in photographs."""

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from hg_plugin.utils.errors import InputError, need_packages
from hg_plugin.utils.images import ImageError, check_regular_file, read_image
from hg_plugin.visualization import blend_by_color, heatmap_sheet, person_color

from .files import predictions_json
from .pose_estimator import PoseEstimator

HOST = '127.0.0.1'
BLACK = (0, 0, 0)
# that OpenCV and Pillow both decode, so that the size that is checked is the size that is decoded
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM', 'AVIF', 'JPEG2000')
# how long uploads and results are kept, and how often old ones are looked for
KEEP_SECONDS, CLEAN_SECONDS = 3600, 60
HINT = 'Drop a photo, or use the camera. Persons are found, or drag a box around each.'
CSS = """
.gradio-container { width: 100% !important; max-width: 1240px !important; margin: 0 auto !important; }
#stacks .grid-container { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) !important; }
.grid-wrap { height: auto !important; max-height: none !important; min-height: 0 !important;
  overflow: visible !important; }
#stacks, #sheets { height: auto !important; min-height: 0 !important; }
"""


class Answer(NamedTuple):
    """What the page shows: images are (H, W, 3) RGB, those in lists with captions."""

    text: str
    drawn: np.ndarray | None = None
    stacks: list[tuple[np.ndarray, str]] = []
    sheets: list[tuple[np.ndarray, str]] = []
    json: str | None = None


def answer(
    estimator: PoseEstimator,
    path: str,
    boxes: list[list[float]],
    *,
    quarter_turns: int = 0,
    kpt_thr: float | None = None,
    flip_test: bool = False,
    max_megabytes: float = 20,
    max_megapixels: float = 50,
) -> Answer:
    """Find the keypoints in an image file, which is turned by so many quarters, clockwise.

    Boxes are left, top, right and bottom of each person, in pixels of the turned image. If there are none,
    persons are looked for. For an image that cannot be read or is too large, the answer's text says so.
    """
    try:
        _check_size(path, max_megabytes, max_megapixels)
        image = np.ascontiguousarray(np.rot90(read_image(path), -quarter_turns))
        poses = estimator(image, boxes or None, flip_test=flip_test, heatmaps=True)
    except ImageError as error:
        # the page's own copy has a folder that means nothing to the user
        return Answer(str(error).replace(str(path), Path(path).name))
    meta, annotated, names = poses.dataset_meta, poses.annotated, poses.names
    drawn, stacks, sheets = poses.draw(kpt_thr), [], []
    for index, (crop, heatmaps) in enumerate(zip(poses.crops, poses.heatmaps), 1):
        enlarged = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        for stage, maps in enumerate(heatmaps * annotated[:, None, None]):
            caption = f'{index}: stage {stage}' if len(poses) > 1 else f'stage {stage}'
            stacks.append((_rgb(blend_by_color(enlarged, maps, meta)), caption))
        sheets.append((_rgb(heatmap_sheet(crop, heatmaps, names)), f'person {index}'))
    thickness = max(1, max(image.shape) // 400)
    font = cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thickness
    for index, (left, top) in enumerate(np.rint(poses.boxes[:, :2]).astype(int).tolist()):
        place = max(left, 0) + 4 * thickness, max(top, 0) + 18 * thickness
        cv2.putText(drawn, str(index + 1), place, *font, BLACK, 3 * thickness, cv2.LINE_AA)
        cv2.putText(drawn, str(index + 1), place, *font, person_color(index), thickness, cv2.LINE_AA)
    untrained = [name for name, known in zip(names, annotated) if not known]
    text = _summary(poses.scores[:, annotated], poses.kpt_thr, untrained)
    json = predictions_json(Path(path).name, poses)
    return Answer(text, _rgb(drawn), stacks, sheets, json)


def _summary(scores: np.ndarray, kpt_thr: float, untrained: list[str]) -> str:
    """Say what was found in (N, K) scores, and whether to trust it."""
    if not len(scores):
        return 'No person was found. Drag a box around each person.'
    sure = int((scores >= kpt_thr).sum())
    persons = f'{len(scores)} persons' if len(scores) > 1 else '1 person'
    lines = [f'{persons}: {sure} of {scores.size} keypoints have a score of {kpt_thr:.2g} or more.']
    if untrained:
        lines.append(f'This network has not learned {" and ".join(untrained)}, which are not drawn.')
    if sure < scores.size / 2:
        lines.append(
            '**Most scores are low: do not trust this result.** Drag a box around each person, from head to '
            'feet, with the whole body in the photo.'
        )
    return ' '.join(lines)


def _check_size(path: str, max_megabytes: float, max_megapixels: float) -> None:
    """Refuse a large file, and a large image by its header."""
    check_regular_file(path)
    megabytes = os.path.getsize(path) / 2**20
    if megabytes > max_megabytes:
        raise ImageError(
            f'The file has {megabytes:.1f} MB, more than the limit of {max_megabytes:g}; '
            'save it smaller, or raise --max-mb.'
        )
    Image.init()
    try:
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            width, height = image.size
    except Exception as error:  # damaged headers raise anything, and so do sizes beyond Pillow's limit
        raise ImageError(
            f'{path} is not an image, or is too large for Pillow; save it as JPEG or PNG.'
        ) from error
    if width * height > max_megapixels * 1e6:
        raise ImageError(
            f'The image has {width}x{height} pixels, more than the limit of {max_megapixels:g} megapixels; '
            'scale it down, or raise --max-megapixels.'
        )


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def serve(
    estimator: PoseEstimator, *, port: int = 7860, max_megabytes: float = 20, max_megapixels: float = 50
) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C or SIGTERM.

    Nothing leaves this machine. Uploads and results lie in a temporary folder for an hour, or until the end.
    Pages of other sites can neither read nor send anything, nor show the page in a frame.

    Args:
        estimator: The network.
        port: Defaults to 7860.
        max_megabytes: Largest file that is taken. Defaults to 20.
        max_megapixels: Largest image that is decoded. Defaults to 50.

    Raises:
        InputError: Gradio is not installed, or the port is in use.
    """
    need_packages('hg_plugin serve', 'gradio', 'gradio_image_annotation')
    with tempfile.TemporaryDirectory(prefix='hg_plugin_serve_') as folder:
        os.environ.update(
            GRADIO_ANALYTICS_ENABLED='False',
            HF_HUB_DISABLE_TELEMETRY='1',
            GRADIO_TEMP_DIR=folder,
            # Gradio asks its own server whether it runs, which a proxy could not
            no_proxy=','.join(filter(None, (os.environ.get('no_proxy'), HOST))),
        )
        import gradio
        from starlette.middleware import Middleware  # Gradio requires it

        page = _page(estimator, folder, max_megabytes, max_megapixels)
        for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background jobs ignore SIGINT
            signal.signal(number, signal.default_int_handler)
        try:
            page.launch(
                server_name=HOST,
                server_port=port,
                share=False,
                quiet=True,
                inbrowser=False,
                prevent_thread_lock=True,
                # beyond this an upload ends without a word; up to this, answer() says why
                max_file_size=int(max_megabytes * 10 * 2**20),
                enable_monitoring=False,
                app_kwargs=dict(middleware=[Middleware(OwnPagesOnly, port=port)]),
                run_history=False,
                footer_links=[],
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                # fonts of the system: the default ones would come from elsewhere
                theme=gradio.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
                css=CSS,
            )
            print(f'Open http://{HOST}:{port} in a browser of this machine. Ctrl-C ends it.', flush=True)
            with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
                while True:  # Gradio prints a line for every file of the page
                    time.sleep(CLEAN_SECONDS)
                    _delete_old(Path(folder))
        except KeyboardInterrupt:
            pass
        except OSError as error:
            raise InputError(f'Port {port} cannot be used; give another with --port.') from error
        finally:
            page.close(verbose=False)


class OwnPagesOnly:
    """An ASGI middleware that refuses other sites' pages: uploads, and answers by DNS rebinding."""

    HEADERS = [(b'x-frame-options', b'DENY'), (b'content-security-policy', b"frame-ancestors 'none'")]

    def __init__(self, app, port: int):
        self.app = app
        self.hosts = {f'{name}:{port}' for name in (HOST, 'localhost', '[::1]')}
        self.origins = {f'http://{host}' for host in self.hosts}

    async def __call__(self, scope, receive, send) -> None:
        headers = {name: value.decode('latin-1') for name, value in scope.get('headers', ())}
        own = headers.get(b'host') in self.hosts and headers.get(b'origin') in {None, *self.origins}

        async def send_with_headers(message):
            if message['type'] == 'http.response.start':
                message = {**message, 'headers': [*message.get('headers', ()), *self.HEADERS]}
            await send(message)

        if own or scope['type'] == 'lifespan':
            await self.app(scope, receive, send_with_headers)
        elif scope['type'] == 'http':
            await send_with_headers(dict(type='http.response.start', status=403))
            await send(dict(type='http.response.body', body=b'This is a page of another site.'))
        else:
            await send(dict(type='websocket.close', code=1008))


def _delete_old(folder: Path) -> None:
    for path in folder.rglob('*'):
        with contextlib.suppress(OSError):  # another thread may have deleted it
            if path.is_file() and time.time() - path.stat().st_mtime > KEEP_SECONDS:
                path.unlink()


def _page(estimator: PoseEstimator, folder: str, max_megabytes: float, max_megapixels: float) -> Any:
    """Build the page, Gradio's Blocks, which writes results to a folder."""
    import gradio
    from gradio_image_annotation import image_annotator

    def find(photo, kpt_thr: float, flip_test: bool):
        found, file = Answer(HINT), None
        if photo is not None:
            path, boxes, quarter_turns = photo
            options = dict(quarter_turns=quarter_turns, kpt_thr=kpt_thr, flip_test=flip_test)
            limits = dict(max_megabytes=max_megabytes, max_megapixels=max_megapixels)
            found = answer(estimator, path, boxes, **options, **limits)
        if found.json:
            file = Path(tempfile.mkdtemp(dir=folder)) / f'{Path(path).stem}.json'
            file.write_text(found.json, encoding='utf-8')
        button = gradio.DownloadButton(value=file and str(file), interactive=file is not None)
        details = gradio.Column(visible=file is not None)
        return found.text, found.drawn, found.stacks, found.sheets, button, details

    def preprocess(payload):
        """The file as it was uploaded, which the component would decode with other rules than ours."""
        if payload is None or payload.image is None:
            return None
        boxes = photo.preprocess_boxes(payload.boxes)[::-1]  # the newest one comes first
        sides = 'xmin', 'ymin', 'xmax', 'ymax'
        return payload.image.path, [[box[side] for side in sides] for box in boxes], payload.orientation or 0

    with gradio.Blocks(title='hg_plugin', analytics_enabled=False) as page:
        limits = f'Up to {max_megabytes:g} MB and {max_megapixels:g} megapixels.'
        gradio.Markdown(f'## Keypoints of persons\n{HINT} {limits} Nothing leaves this machine.')
        with gradio.Row():
            with gradio.Column():
                photo = image_annotator(
                    label='Photo',
                    sources=['upload', 'webcam', 'clipboard'],
                    disable_edit_boxes=True,
                    boxes_alpha=0.15,
                    show_share_button=False,
                    show_download_button=False,
                    show_remove_button=True,
                    enable_keyboard_shortcuts=True,
                    elem_id='photo',
                )
                photo.preprocess = preprocess
                button = gradio.Button('Find keypoints', variant='primary', elem_id='find')
                with gradio.Accordion('Options', open=False):
                    kpt_thr = gradio.Slider(0, 1, estimator.kpt_thr, label='Lowest score that is drawn')
                    flip_test = gradio.Checkbox(label='Average with the flipped photo: slower, more accurate')
            with gradio.Column():
                text = gradio.Markdown(elem_id='status')
                drawn = gradio.Image(
                    label='Skeletons',
                    format='jpeg',
                    interactive=False,
                    buttons=['fullscreen'],
                    elem_id='drawn',
                )
                download = gradio.DownloadButton('Download JSON', interactive=False, elem_id='json')
        with gradio.Column(visible=False) as details:
            gradio.Markdown('### Heatmaps after each stack')
            look = dict(format='jpeg', object_fit='contain', buttons=[], show_label=False)
            stacks = gradio.Gallery(columns=4, elem_id='stacks', **look)
            with gradio.Accordion('The heatmap of every keypoint', open=False):
                sheets = gradio.Gallery(columns=1, elem_id='sheets', **look)
        gradio.on(
            [button.click],
            find,
            [photo, kpt_thr, flip_test],
            [text, drawn, stacks, sheets, download, details],
            api_visibility='private',
        )
    return page
