# For a cluster: submits the cells of a profile of study.yaml that are missing, then the notebooks, each on one thread:
#   .venv/bin/snakemake --workflow-profile profiles/slurm --config profile=full
# On one machine `snr study` does the same in a pool of its own, without snakemake.
from snrlib.study import workflow as study

RUN = study.begin(config, workflow)
# A run is finished when its result row says so, which appears whole or not at all. What snakemake sees of it is a
# mark, good for one call: marks and locks of a call that was killed mean nothing to the next.
MARK = ".study/"
# If it was killed, it could not say why.
SHELL = """
    trap : TERM
    {params.command} > {log:q} 2>&1 || {{
        status=$?
        grep -q '^snr: ' {log:q} ||
            echo "snr: it ended with status $status; 137 is a kill, often for want of memory" >> {log:q}
        exit $status
    }}
"""


workdir: RUN.folder


localrules:
    all,


rule all:
    input:
        [MARK + name for name in RUN.to_do],


rule cell:
    output:
        touch(MARK + "grid/{cell}"),
    log:
        "grid/{cell}/run.log",
    params:
        command=lambda wildcards: RUN.command(f"grid/{wildcards.cell}"),
    wildcard_constraints:
        cell="[^/]+",
    threads: 1
    retries: 1
    priority: 1
    shell:
        SHELL


rule notebook:
    output:
        touch(MARK + "{notebook}/default"),
    log:
        "{notebook}/default/run.log",
    params:
        command=lambda wildcards: RUN.command(f"{wildcards.notebook}/default"),
    wildcard_constraints:
        notebook="[0-9][0-9]_[^/]+",
    threads: 1
    retries: 1
    shell:
        SHELL


onsuccess:
    study.summarize(RUN.grid)


onerror:
    study.summarize(RUN.grid)
