"""benchmarks/launches.py: how many operations a training step launches."""


def test_a_training_step_launches_at_most_850_operations(monkeypatch, request, tmp_path):
    monkeypatch.syspath_prepend(request.config.rootpath / 'benchmarks')
    from launches import PARTS, count_operations

    counts = count_operations(str(tmp_path), on_cpu=True)
    parts = {part: sum(n for (each, _), n in counts.items() if each == part) for part in PARTS}
    assert all(parts.values()) and sum(parts.values()) <= 850, counts
    # no weight is cast, and no batch counted, on its own
    assert counts['network', '_to_copy'] + counts['backward', '_to_copy'] < 5
    assert counts['network', '_foreach_add_'] == 1
