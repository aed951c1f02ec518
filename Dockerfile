# Permafrost in a container: a CUDA base image, the project and its pinned dependencies.
#
#   docker build -t permafrost .
#   docker build -t permafrost --build-arg EXTRAS=remote,slurm,ray --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
#   docker run --gpus all -v /data:/data permafrost extract --dataset coco --data /data/coco --stores /data/features --model swinv2-b
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04
FROM ${BASE}
ARG EXTRAS=remote
ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev gcc \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/permafrost
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY stores stores
COPY extract extract
COPY heads heads
COPY pipelines pipelines
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --constraint constraints.txt --editable ".[${EXTRAS}]"
ENV PATH=/opt/venv/bin:${PATH}
# Stores, runs and caches are named by the user's paths, which are mounted.
ENTRYPOINT ["python", "-m", "pipelines"]
CMD ["--help"]
