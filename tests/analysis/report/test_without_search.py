from __future__ import annotations

import re

from analysis.frame import load_runs
from analysis.report.page import write_report
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.run_folder.writing import create_run, write_result


def test_write_report_without_a_search_speaks_of_none(tmp_path, make_run, retrained):
    row = load_runs(make_run()).iloc[0].replace("demo", "plain")
    folder = create_run(tmp_path / "plain", config_to_dict(RunConfig()), "0.0.0")
    write_result(folder, retrained(row, origin="plain"))
    page = write_report(folder, tmp_path / "report.html").read_text()
    text = " ".join(re.sub("<script.*?</script>|<[^>]+>", " ", page, flags=re.S).split())
    assert "There was no search." in text
    for word in ("Proxy error", "Supernet", "Noise of one score", "no snapshot yet"):
        assert word not in text
