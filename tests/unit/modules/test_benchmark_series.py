from __future__ import annotations

from ansible_collections.jhok.lab.plugins.modules.benchmark_series import lines_of, scratch_config, told

TEXT = """# HELP container_cpu_usage_seconds_total CPU
container_cpu_usage_seconds_total{container="notebook",pod="jhok-load-1"} 2.5 1700000000000
container_memory_working_set_bytes{container="notebook",pod="jhok-load-1"} 1e+06
container_memory_working_set_bytes{container="notebook",pod="jhok-load-10"} 7
"""


def test_tells_of_one_pod_what_it_read() -> None:
    found = lines_of(TEXT, "jhok-load-1")
    assert [(name, value) for name, _, value in found] == [
        ("container_cpu_usage_seconds_total", 2.5),
        ("container_memory_working_set_bytes", 1e6),
    ]


def test_tells_of_many_under_their_own_names() -> None:
    lines = told(lines_of(TEXT, "jhok-load-1"), "jhok-load-1", [3, 4], 10).splitlines()
    assert lines[0] == 'container_cpu_usage_seconds_total{container="notebook",pod="jhok-load-1-3"} 32.5'
    assert [line.partition("} ")[0].rpartition("-")[2] for line in lines] == ['3"', '3"', '4"', '4"']


def test_keeps_what_the_site_keeps() -> None:
    trimmed = [{"source_labels": ["__name__"], "regex": "container_.*", "action": "keep"}]
    site = {
        "global": {"scrape_interval": "30s"},
        "rule_files": ["/etc/prometheus/rules.yml"],
        "alerting": {"alertmanagers": []},
        "scrape_configs": [
            {
                "job_name": "cadvisor",
                "scheme": "https",
                "kubernetes_sd_configs": [{"role": "node"}],
                "metric_relabel_configs": trimmed,
            },
            {"job_name": "etcd", "static_configs": [{"targets": ["127.0.0.1:2381"]}]},
        ],
    }
    made = scratch_config(site, 1234, 2)
    assert made["global"] == site["global"]
    assert made["rule_files"] == site["rule_files"]
    assert [job["job_name"] for job in made["scrape_configs"]] == ["cadvisor", "prometheus"]
    job = made["scrape_configs"][0]
    assert set(job) == {"job_name", "metric_relabel_configs", "static_configs"}
    assert job["metric_relabel_configs"] == trimmed
    assert [part["labels"]["__metrics_path__"] for part in job["static_configs"]] == ["/cadvisor/0", "/cadvisor/1"]
